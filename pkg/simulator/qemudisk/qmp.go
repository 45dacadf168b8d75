//go:build linux

package qemudisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// qmpClient talks to one QEMU in the QEMU Machine Protocol: a JSON object at a time, answers by the number of the
// question, events in between. (docs/interop/qmp-spec.rst of QEMU.)
type qmpClient struct {
	conn   net.Conn
	events func(qmpEvent) // called by the reader: must not ask anything
	ended  chan struct{}  // closed when the connection is over

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan qmpMessage
	err     error // why the connection is over
}

// qmpEvent is something that QEMU tells by itself.
type qmpEvent struct {
	Name string
	Data struct {
		Device string `json:"device"` // ID of the device concerned, if it has one
		Path   string `json:"path"`
	}
}

// qmpError is a refusal of QEMU's.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return "QEMU: " + e.Desc }

// classNoDevice is the class of refusals to do something to a device that there is not.
const classNoDevice = "DeviceNotFound"

// qmpMessage is whatever comes from QEMU: a greeting, an answer or an event.
type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
}

var errGone = errors.New("the machine has ended, or somebody else speaks to it")

// dialQMP connects to the socket of a machine and leaves the negotiation mode. The socket serves one client at a time;
// while it has another, or the machine hangs, it is ctx that ends.
func dialQMP(ctx context.Context, socket string, events func(qmpEvent)) (*qmpClient, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return newQMP(ctx, conn, events)
}

func newQMP(ctx context.Context, conn net.Conn, events func(qmpEvent)) (*qmpClient, error) {
	c := &qmpClient{conn: conn, events: events, ended: make(chan struct{}), waiting: map[uint64]chan qmpMessage{}}
	greeted := make(chan struct{})
	go c.read(greeted)
	var err error
	select {
	case <-greeted:
		err = c.ask(ctx, nil, "qmp_capabilities", nil)
	case <-c.ended:
		err = c.failure()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("greeting of QEMU: %w", err)
	}
	return c, nil
}

// read takes what comes until the connection is over. close, or QEMU's end, ends it.
func (c *qmpClient) read(greeted chan<- struct{}) {
	decoder := json.NewDecoder(c.conn)
	for {
		var m qmpMessage
		if err := decoder.Decode(&m); err != nil {
			c.end(err)
			return
		}
		switch {
		case m.QMP != nil && greeted != nil:
			close(greeted)
			greeted = nil
		case m.Event != "":
			event := qmpEvent{Name: m.Event}
			// Data in another form than known is of events that are of no use here.
			_ = json.Unmarshal(m.Data, &event.Data)
			c.events(event)
		case m.ID != nil:
			c.deliver(m)
		}
	}
}

func (c *qmpClient) deliver(m qmpMessage) {
	c.mu.Lock()
	answer := c.waiting[*m.ID]
	delete(c.waiting, *m.ID)
	c.mu.Unlock()
	if answer != nil {
		answer <- m // has room for one
	}
}

func (c *qmpClient) end(err error) {
	c.mu.Lock()
	c.err = fmt.Errorf("%w: %w", errGone, err)
	c.mu.Unlock()
	c.conn.Close()
	close(c.ended)
}

func (c *qmpClient) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// ask has QEMU execute a command; result, if not nil, takes its answer.
func (c *qmpClient) ask(ctx context.Context, result any, command string, arguments any) error {
	answer := make(chan qmpMessage, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = answer
	data, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err == nil {
		deadline, _ := ctx.Deadline() // none: the zero time, which is none
		err = write(c.conn, data, deadline)
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return fmt.Errorf("%s: %w", command, m.Error)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Return, result); err != nil {
			return fmt.Errorf("%s: QEMU's answer is not what was expected: %w", command, err)
		}
		return nil
	case <-c.ended:
		return fmt.Errorf("%s: %w", command, c.failure())
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}

func write(to net.Conn, data []byte, deadline time.Time) error {
	err := to.SetWriteDeadline(deadline)
	if err == nil {
		_, err = to.Write(data)
	}
	if err == nil {
		return nil
	}
	to.Close() // half a question cannot be taken back
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return err
}

// close ends the connection and waits for its reader.
func (c *qmpClient) close() {
	c.conn.Close()
	<-c.ended
}
