package haproxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// healthPath is where a new worker finds what the former one knew of its members' health.
func healthPath(dir string) string { return filepath.Join(dir, "servers.state") }

// keepHealth writes down what is known of the health of the members that the new configuration has, too. A member that it does not
// know is in use until it fails a check, as HAProxy has it.
func (i *instance) keepHealth(ctx context.Context, config []byte) error {
	state, err := i.ask(ctx, "stats.sock", "show servers state\n")
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(state) {
		if fields := strings.Fields(line); len(fields) < stateFields || strings.HasPrefix(line, "#") || sameMember(config, fields) {
			kept.WriteString(line)
		}
	}
	return os.WriteFile(healthPath(i.dir), []byte(kept.String()), 0o600)
}

// Columns of `show servers state`, HAProxy's Management Guide 9.3.
const (
	stateName    = 3
	stateAddress = 4
	statePort    = 18
	stateFields  = 19
)

// sameMember says whether the configuration has the member of that line at the same address and port.
func sameMember(config []byte, state []string) bool {
	return bytes.Contains(config, fmt.Appendf(nil, "\n  server %s %s ", state[stateName], net.JoinHostPort(state[stateAddress], state[statePort])))
}

// forgetHealth has a process begin without knowing anything.
func (i *instance) forgetHealth() error { return os.WriteFile(healthPath(i.dir), nil, 0o600) }
