package haproxy

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Measure implements simulator.LoadBalancerMeter: what HAProxy has counted since it was last configured.
func (p *Plane) Measure(ctx context.Context, uuid string) ([]simulator.Measured, error) {
	p.mu.Lock()
	i := p.instances[uuid]
	p.mu.Unlock()
	if i == nil {
		return nil, nil
	}
	text, err := i.ask(ctx, "stats.sock", "show stat\n")
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# "))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, errors.Join(errors.New("haproxy's counters cannot be read"), err)
	}
	var out []simulator.Measured
	for _, row := range rows[1:] {
		if m, ok := measured(rows[0], row); ok {
			out = append(out, m)
		}
	}
	return out, nil
}

// ask sends a command to one of HAProxy's sockets.
func (i *instance) ask(ctx context.Context, socket, command string) (string, error) {
	dir, err := os.Open(i.dir)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socket) // short, whatever the folder is called
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(stopTimeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	return string(text), err
}

// measured reads one line of HAProxy's statistics; false: it is of nothing that the API knows.
func measured(names, row []string) (simulator.Measured, bool) {
	m := simulator.Measured{Counts: map[string]int64{}}
	for n, name := range names {
		if n < len(row) {
			if v, err := strconv.ParseInt(row[n], 10, 64); err == nil {
				m.Counts[name] = v
			}
		}
	}
	proxy, server := row[0], row[1]
	m.Status, m.Check = column(names, row, "status"), column(names, row, "check_status")
	m.CheckText = column(names, row, "last_chk")
	if name, ok := strings.CutPrefix(proxy, "fe_"); ok {
		m.Frontend = name
		return m, server == "FRONTEND"
	}
	name, ok := strings.CutPrefix(proxy, "be_http_")
	if !ok {
		if name, ok = strings.CutPrefix(proxy, "be_tcp_"); !ok {
			return m, false
		}
	}
	m.Backend = name
	if server != "BACKEND" {
		m.Member = server
	}
	return m, true
}

func column(names, row []string, name string) string {
	for n := range names {
		if names[n] == name && n < len(row) {
			return row[n]
		}
	}
	return ""
}
