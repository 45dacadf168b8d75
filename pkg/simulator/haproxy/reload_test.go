package haproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ailing is a member that answers, but says of itself that it is not well.
func ailing(t *testing.T, name string) (member string, checked *atomic.Int64) {
	checked = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			checked.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(server.Close)
	return memberAt(name, server.Listener.Addr().String()), checked
}

// A change does not make the load balancer forget which members are not well; one that it did not know is in use until it has
// failed a check.
func TestChangesKeepWhatIsKnownOfMembers(t *testing.T) {
	b := start(t)
	one, two := web(t, "one"), web(t, "two")
	down, checked := ailing(t, "down")
	uuid, address := b.balance(t, 18210, "http", `{"health_check_type":"http","health_check_url":"/healthz","health_check_interval":30,"health_check_fall":1}`,
		one, down)
	until(t, "the member fails its check", func() error {
		if checked.Load() == 0 {
			return fmt.Errorf("it was not checked")
		}
		return nil
	})
	answers := func() map[string]bool {
		seen := map[string]bool{}
		for range 12 {
			_, body := ask(t, "GET", "http://"+address, nil)
			seen[strings.Fields(body)[0]] = true
		}
		return seen
	}
	until(t, "it is out of use", func() error {
		if seen := answers(); seen["down"] {
			return fmt.Errorf("it answers")
		}
		return nil
	})
	for _, members := range []string{
		one + "," + down + "," + two,
		strings.Replace(one, `"weight":100`, `"weight":0`, 1) + "," + down + "," + two,
		one + "," + down + "," + two,
	} {
		b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"members":[`+members+`]}`, nil)
		b.running(t, uuid)
		seen := answers()
		if seen["down"] || !seen["two"] || seen["one"] == strings.Contains(members, `"weight":0`) {
			t.Errorf("with members %s there answer %v", members, seen)
		}
	}
	fresh, _ := ailing(t, "fresh")
	b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"members":[`+down+","+fresh+`]}`, nil)
	b.running(t, uuid)
	if seen := answers(); seen["down"] {
		t.Errorf("there answer %v", seen)
	}
	// The same name at another address is another member.
	moved := strings.Replace(two, `"two"`, `"down"`, 1)
	b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"members":[`+moved+`]}`, nil)
	b.running(t, uuid)
	if seen := answers(); !seen["two"] {
		t.Errorf("at the new address there answer %v", seen)
	}
}

// Connections that come while the load balancer changes are served, and those that there are go on.
func TestChangesLoseNoConnection(t *testing.T) {
	b := start(t)
	one, two := web(t, "one"), web(t, "two")
	uuid, address := b.balance(t, 18211, "tcp", "{}", one, two)
	var clients sync.WaitGroup
	var done atomic.Bool
	var made atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !done.Load() {
				if err := askOnce(address); err != nil {
					t.Error(err)
				}
				made.Add(1)
			}
		})
	}
	kept, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for round := range 10 {
		before := made.Load()
		b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"members":[`+[]string{one, two}[round%2]+`]}`, nil)
		b.running(t, uuid)
		until(t, "more requests are made", func() error {
			if made.Load() < before+50 {
				return fmt.Errorf("%d", made.Load())
			}
			return nil
		})
	}
	done.Store(true)
	clients.Wait()
	fmt.Fprint(kept, "GET / HTTP/1.0\r\n\r\n")
	if answer, err := io.ReadAll(kept); err != nil || !strings.Contains(string(answer), "200 OK") {
		t.Errorf("over the connection from before: %q, %v", answer, err)
	}
}

// A client that keeps its connection is not cut off when it has just asked again: the old worker answers, and then says that it closes.
func TestChangesLoseNoRequestOverKeptConnections(t *testing.T) {
	b := start(t)
	one, two := web(t, "one"), web(t, "two")
	uuid, address := b.balance(t, 18212, "http", "{}", one, two)
	var clients sync.WaitGroup
	var done atomic.Bool
	var made atomic.Int64
	for range 8 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			for !done.Load() {
				if err := postOnce(client, address); err != nil {
					t.Error(err)
				}
				made.Add(1)
				time.Sleep(2 * time.Millisecond) // the connection is idle, and another request is about to come
			}
		})
	}
	for round := range 20 {
		before := made.Load()
		b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"members":[`+[]string{one, two}[round%2]+`]}`, nil)
		b.running(t, uuid)
		until(t, "more requests are made", func() error {
			if made.Load() < before+100 {
				return fmt.Errorf("%d", made.Load())
			}
			return nil
		})
	}
	done.Store(true)
	clients.Wait()
}

// postOnce makes a request that net/http does not repeat, as its body cannot be had twice.
func postOnce(client *http.Client, address string) error {
	request, err := http.NewRequest(http.MethodPost, "http://"+address, io.NopCloser(strings.NewReader("?")))
	if err != nil {
		return err
	}
	request.ContentLength = 1
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// askOnce asks over a connection of its own, and does not ask again.
func askOnce(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "POST / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.Contains(string(answer), "200 OK") {
		err = fmt.Errorf("the answer is %q", answer)
	}
	return err
}
