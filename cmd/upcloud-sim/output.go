package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// warnOfAllAddresses warns of an API that is served to every network that the machine is in.
func warnOfAllAddresses(out io.Writer, api []net.Listener) {
	for _, l := range api {
		if address, ok := l.Addr().(*net.TCPAddr); ok && address.IP.IsUnspecified() {
			fmt.Fprintf(out, "upcloud-sim: warning: %s listens on all addresses: whoever reaches this machine can use the simulator, and steer it "+
				"without credentials; use --listen 127.0.0.1:%d unless others are to use it\n", address, address.Port)
		}
	}
}

// banner says where the simulator is and how to talk to it.
func banner(out io.Writer, o *options, cfg simulator.Config, api []net.Listener) {
	scheme, insecure, skip := "http://", "", ""
	if o.tls || o.tlsCert != "" {
		scheme = "https://"
	}
	if o.tls && o.tlsCert == "" {
		insecure, skip = "-k ", " UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY=1"
	}
	url := scheme + api[0].Addr().String()
	var b strings.Builder
	fmt.Fprintf(&b, "upcloud-sim %s: a local UpCloud at %s (profile %s)\n\n", version, url, cfg.Profile)
	if cfg.Username != "" {
		fmt.Fprintf(&b, "  curl %s-u %s:%s %s/1.3/account\n", insecure, cfg.Username, shown(cfg.Password, simulator.DefaultPassword,
			"PASSWORD"), url)
		fmt.Fprintf(&b, "  export UPCLOUD_DEBUG_API_BASE_URL=%s UPCLOUD_USERNAME=%s UPCLOUD_PASSWORD=%s%s\n", url, cfg.Username,
			shown(cfg.Password, simulator.DefaultPassword, "PASSWORD"), skip)
	} else {
		fmt.Fprintf(&b, "  curl %s-H \"Authorization: Bearer $UPCLOUD_TOKEN\" %s/1.3/account\n", insecure, url)
		fmt.Fprintf(&b, "  export UPCLOUD_DEBUG_API_BASE_URL=%s UPCLOUD_TOKEN=TOKEN%s\n", url, skip)
	}
	fmt.Fprintf(&b, "  curl %s%s/_simulator/requests   # what has been asked\n", insecure, url)
	for _, l := range api[1:] {
		fmt.Fprintf(&b, "\nThe API also at %s%s\n", scheme, l.Addr())
	}
	if len(o.metadataListen) > 0 {
		fmt.Fprintf(&b, "\nInstance metadata: %s\n", strings.Join(o.metadataListen, ", "))
	}
	switch o.disks {
	case "loop":
		fmt.Fprintf(&b, "Disks: loop devices, files in %s\n", o.disksDir)
	case "qemu":
		fmt.Fprintf(&b, "Disks: of the QEMU machines at %s/servers/UUID/qmp.sock\n", o.disksDir)
	}
	if o.loadBalancers == "haproxy" {
		where := "addresses of the loopback network"
		if o.loadBalancerInterface != "" {
			where = "addresses added to " + o.loadBalancerInterface
		}
		fmt.Fprintf(&b, "Load balancers: HAProxy on %s\n", where)
	}
	if o.routers == "kernel" {
		fmt.Fprint(&b, "Routers: static routes in this network namespace's routing table\n")
	}
	if o.state != "" {
		fmt.Fprintf(&b, "State: kept in %s\n", o.state)
	}
	if o.clock == "manual" {
		fmt.Fprintf(&b, "Time stands still: curl %s-X POST %s/_simulator/clock -d '{\"advance\":\"10s\"}'\n", insecure, url)
	}
	for _, f := range o.faults {
		fmt.Fprintf(&b, "Fault: %s\n", f)
	}
	fmt.Fprint(&b, "\nStop with Ctrl-C.\n")
	_, _ = io.WriteString(out, b.String())
}

// shown is a credential that everybody knows, or a word in place of one that somebody chose.
func shown(value, known, word string) string {
	if value == known {
		return value
	}
	return word
}

// logger writes lines that people read.
type logger struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *logger) request(r simulator.Request) {
	status := "drop"
	if r.Status != 0 {
		status = fmt.Sprint(r.Status)
	}
	code := ""
	if r.Code != "" {
		code = "  " + r.Code
	}
	l.write("%s  %-6s %s  %s  %s%s\n", r.Time.Format("15:04:05.000"), r.Method, status, r.URI, r.Duration.Round(10_000), code)
}

func (l *logger) failure(err error) { l.write("upcloud-sim: %v\n", err) }

func (l *logger) write(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, format, args...)
}
