//go:build linux

package qemudisk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
)

const greeting = `{"QMP":{"version":{},"capabilities":["oob"]}}` + "\n"

// peer answers what a client asks, each with the line that reply makes of the number of the question.
func peer(t *testing.T, first string, reply func(command string, id string) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		if _, err := theirs.Write([]byte(first)); err != nil {
			return
		}
		decoder := json.NewDecoder(bufio.NewReader(theirs))
		for {
			var asked struct {
				Execute string
				ID      json.Number
			}
			if decoder.Decode(&asked) != nil {
				return
			}
			line := reply(asked.Execute, asked.ID.String())
			if line == "" {
				return
			}
			if _, err := theirs.Write([]byte(line + "\n")); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { ours.Close(); <-done })
	return ours
}

func TestQMPSurvivesWhatIsNotExpected(t *testing.T) {
	events := make(chan qmpEvent, 10)
	conn := peer(t, greeting, func(command, id string) string {
		switch command {
		case "refused":
			return `{"id":` + id + `,"error":{"class":"DeviceNotFound","desc":"no such thing"}}`
		case "odd":
			return `{"id":` + id + `,"return":["not an object"]}`
		case "noisy":
			return `{"event":"STOP","data":[1]} {"event":"DEVICE_DELETED","data":{"device":"d","path":"/p"}}
				{"id":999,"return":{}} {"id":null,"return":{}} {"neither":1} {"QMP":{}} {"id":` + id + `,"return":{"n":7}}`
		}
		return `{"id":` + id + `,"return":{}}`
	})
	c, err := newQMP(t.Context(), conn, func(e qmpEvent) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var refusal *qmpError
	if err := c.ask(t.Context(), nil, "refused", nil); !errors.As(err, &refusal) || refusal.Class != classNoDevice {
		t.Errorf("a refusal: %v", err)
	}
	var answer struct{ N int }
	if err := c.ask(t.Context(), &answer, "odd", nil); err == nil {
		t.Error("an answer of another form was taken")
	}
	if err := c.ask(t.Context(), &answer, "noisy", nil); err != nil || answer.N != 7 {
		t.Errorf("%v, %v", answer, err)
	}
	if first, second := <-events, <-events; first.Name != "STOP" || second.Data.Device != "d" {
		t.Errorf("events %v, %v", first, second)
	}
}

func TestQMPOfSomethingElse(t *testing.T) {
	for name, says := range map[string]string{
		"garbage": "HTTP/1.1 400 Bad Request\r\n\r\n", "an end": "", "half a greeting": `{"QMP":`,
		"another greeting": `["QMP"]`,
	} {
		conn := peer(t, says, func(string, string) string { return "" })
		if says == "" {
			conn.Close()
		} else if strings.HasSuffix(says, ":") {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := newQMP(ctx, conn, func(qmpEvent) {}); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if _, err := newQMP(t.Context(), conn, func(qmpEvent) {}); !errors.Is(err, errGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQMPEndsWithTheMachineAndTheCaller(t *testing.T) {
	held := make(chan struct{})
	conn := peer(t, greeting, func(command, id string) string {
		switch command {
		case "die":
			return ""
		case "hang":
			close(held)
			return `{"event":"NOTHING"}`
		}
		return `{"id":` + id + `,"return":{}}`
	})
	c, err := newQMP(t.Context(), conn, func(qmpEvent) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-held; cancel() }()
	if err := c.ask(ctx, nil, "hang", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller went away: %v", err)
	}
	if err := c.ask(t.Context(), nil, "die", nil); !errors.Is(err, errGone) {
		t.Errorf("the machine ended: %v", err)
	}
	if err := c.ask(t.Context(), nil, "late", nil); err == nil {
		t.Error("a machine that has ended answers")
	}
	c.close()
}
