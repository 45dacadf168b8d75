package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// LogDir is where the output of programs that were started goes, a file for each name.
const LogDir = "/run/log"

// Serve answers clients until it fails.
func Serve() error {
	if err := os.MkdirAll(LogDir, 0o755); err != nil {
		return err
	}
	csi, err := net.Listen("tcp", ":"+strconv.Itoa(CSIPort))
	if err != nil {
		return err
	}
	defer csi.Close()
	go func() {
		for {
			conn, err := csi.Accept()
			if err != nil {
				return
			}
			go Relay(conn, func() (net.Conn, error) { return net.Dial("unix", CSISocket) })
		}
	}()
	a := &agent{started: map[string]*service{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /exec", a.exec)
	mux.HandleFunc("POST /start", a.start)
	mux.HandleFunc("POST /kill", a.kill)
	server := &http.Server{Addr: ":" + strconv.Itoa(AgentPort), Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// Relay passes bytes on both ways between a connection and another that dial makes, until one of them ends.
func Relay(from io.ReadWriteCloser, dial func() (net.Conn, error)) {
	defer from.Close()
	to, err := dial()
	if err != nil {
		return
	}
	done := make(chan struct{}, 2)
	pass := func(w io.Writer, r io.Reader) {
		_, _ = io.Copy(w, r) // an end is an end
		done <- struct{}{}
	}
	go pass(to, from)
	go pass(from, to)
	<-done
	to.Close()
	from.Close()
}

type agent struct {
	mu      sync.Mutex
	started map[string]*service
}

// service is a program that runs beside the agent.
type service struct {
	process *os.Process
	ended   chan struct{}
}

func (a *agent) command(w http.ResponseWriter, r *http.Request) (*exec.Cmd, *command) {
	var c command
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil || len(c.Args) == 0 {
		http.Error(w, fmt.Sprint("no command: ", err), http.StatusBadRequest)
		return nil, nil
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	return cmd, &c
}

// exec answers with the program's output as it comes, and its exit status as a trailer.
func (a *agent) exec(w http.ResponseWriter, r *http.Request) {
	cmd, c := a.command(w, r)
	if cmd == nil {
		return
	}
	w.Header().Set("Trailer", statusTrailer)
	out := &flusher{w, http.NewResponseController(w)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = newReader(c.Stdin), out, out
	err := cmd.Run()
	status := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status = exit.ExitCode()
	case err != nil:
		fmt.Fprintln(w, err)
		status = 127
	}
	w.Header().Set(statusTrailer, strconv.Itoa(status))
}

// start runs a program until it ends or is killed; its output is appended to a file.
func (a *agent) start(w http.ResponseWriter, r *http.Request) {
	cmd, c := a.command(w, r)
	if cmd == nil {
		return
	}
	log, err := os.OpenFile(filepath.Join(LogDir, c.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer log.Close() // the program has its own
	cmd.Stdout, cmd.Stderr = log, log
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.started[c.Name] != nil {
		http.Error(w, c.Name+" runs", http.StatusConflict)
		return
	}
	if err := cmd.Start(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s := &service{process: cmd.Process, ended: make(chan struct{})}
	a.started[c.Name] = s
	go func() {
		defer close(s.ended)
		_ = cmd.Wait()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.started, c.Name)
	}()
}

// kill ends a program at once, and answers when it is gone.
func (a *agent) kill(w http.ResponseWriter, r *http.Request) {
	var c command
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	s := a.started[c.Name]
	a.mu.Unlock()
	if s == nil {
		http.Error(w, c.Name+" does not run", http.StatusConflict)
		return
	}
	_ = s.process.Kill() // one that has ended meanwhile is as good
	<-s.ended
}

// flusher passes every line on at once.
type flusher struct {
	io.Writer
	control *http.ResponseController
}

func (f *flusher) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
