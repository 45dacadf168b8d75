//go:build linux

// Package qemu runs the tests' virtual machine: Debian's kernel and packages in QEMU, without hardware acceleration unless
// asked for. It knows nothing of what is tested in it.
package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/vm/guest"
)

// Config says what to boot.
type Config struct {
	// Guest is the folder that hack/vm-guest made.
	Guest string
	// Programs are copied into the guest's folder /opt. One of them is the agent.
	Programs []string
	// Dir is for what the machine needs while it runs, and for its console's output.
	Dir string
	// Disks is the socket for whoever plugs disks in.
	Disks string
	// Metadata is host and port, on this side, of the metadata service.
	Metadata string
	// Accelerator is one of QEMU's; empty: tcg.
	Accelerator string
}

// MetadataURL is where programs in the guest find the metadata service. No other address outside can be reached.
const MetadataURL = "http://10.0.2.100"

// Machine is a machine that runs.
type Machine struct {
	cfg     Config
	process *exec.Cmd
	ended   chan struct{}
	failure error // why it ended; written before ended is closed

	Guest *guest.Client
	// CSI is the address, on this side, that leads to the CSI socket in the guest.
	CSI string
}

// Boot starts a machine and waits until programs can be executed in it. Close ends it.
func Boot(ctx context.Context, cfg Config) (*Machine, error) {
	if err := makeDisk(ctx, cfg.tools(), cfg.Programs); err != nil {
		return nil, err
	}
	m := &Machine{cfg: cfg, ended: make(chan struct{})}
	m.process = exec.Command("qemu-system-x86_64", cfg.arguments()...)
	var said bytes.Buffer
	m.process.Stdout, m.process.Stderr = &said, &said
	// A group of its own: a Ctrl-C is the test's to act upon. Should the test die, the machine does, too.
	m.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(m.ended)
		_ = m.process.Wait() // the state says how it ended
		m.failure = fmt.Errorf("the machine ended (%s): %s", m.process.ProcessState, bytes.TrimSpace(said.Bytes()))
	}()
	if err := m.awaitAgent(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("%w; the end of its console:\n%s", err, m.Console())
	}
	return m, nil
}

func (cfg *Config) tools() string   { return filepath.Join(cfg.Dir, "tools.img") }
func (cfg *Config) console() string { return filepath.Join(cfg.Dir, "console.log") }
func (cfg *Config) monitor() string { return filepath.Join(cfg.Dir, "monitor.sock") }

func (cfg *Config) arguments() []string {
	accelerator, processor := cfg.Accelerator, "max,la57=off"
	if accelerator == "" {
		accelerator = "tcg,thread=multi"
	}
	if accelerator == "kvm" {
		processor = "host"
	}
	return []string{
		"-machine", "pc", "-accel", accelerator, "-cpu", processor, "-smp", "2", "-m", "2048",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:" + cfg.console(),
		"-kernel", filepath.Join(cfg.Guest, "vmlinuz"),
		// panic=-1 and -no-reboot: a kernel that cannot go on ends the machine
		"-append", "console=ttyS0 root=/dev/nvme0n1 rootfstype=ext4 ro rootwait init=/sbin/init-vm net.ifnames=0 panic=-1 quiet modprobe.blacklist=kvm_amd",
		"-drive", "if=none,id=root,format=raw,readonly=on,file=" + filepath.Join(cfg.Guest, "root.ext2"),
		"-device", "nvme,drive=root,serial=root,addr=3",
		"-drive", "if=none,id=tools,format=raw,readonly=on,file=" + cfg.tools(),
		"-device", "nvme,drive=tools,serial=tools,addr=4",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:%d,hostfwd=tcp:127.0.0.1:0-:%d,"+
			"guestfwd=tcp:10.0.2.100:80-cmd:%s relay %s", guest.AgentPort, guest.CSIPort, cfg.agent(), cfg.Metadata),
		"-device", "virtio-net-pci,netdev=net,addr=5", "-device", "virtio-rng-pci,addr=6",
		"-qmp", "unix:" + cfg.Disks + ",server=on,wait=off", "-qmp", "unix:" + cfg.monitor() + ",server=on,wait=off",
	}
}

func (cfg *Config) agent() string {
	for _, path := range cfg.Programs {
		if filepath.Base(path) == "agent" {
			return path
		}
	}
	return ""
}

// makeDisk makes a disk with a filesystem that holds copies of the files.
func makeDisk(ctx context.Context, image string, files []string) error {
	dir, err := os.MkdirTemp(filepath.Dir(image), "tools")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	size := int64(32 << 20)
	for _, path := range files {
		if err := os.Link(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		size += st.Size()
	}
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", "-d", dir, image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// awaitAgent waits until the guest is up and its agent answers.
func (m *Machine) awaitAgent(ctx context.Context) error {
	var agent string
	err := m.until(ctx, func() (err error) {
		agent, m.CSI, err = m.ports()
		return err
	})
	if err != nil {
		return err
	}
	m.Guest = &guest.Client{Address: agent, HTTP: http.Client{Transport: &http.Transport{}}}
	return m.until(ctx, func() error {
		// The machine's network takes connections before the guest does, and may lose them.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := m.Guest.Run(ctx, nil, nil, "true")
		return err
	})
}

func (m *Machine) until(ctx context.Context, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-m.ended:
			return m.failure
		case <-ctx.Done():
			return fmt.Errorf("the machine is not up: %w (%w)", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// forwarded is a line of QEMU's "info usernet": the port that it chose on this side, and the guest's.
var forwarded = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)`)

// ports asks QEMU which ports lead into the guest.
func (m *Machine) ports() (agent, csi string, err error) {
	conn, err := net.Dial("unix", m.cfg.monitor())
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", "", err
	}
	if _, err := conn.Write([]byte(`{"execute":"qmp_capabilities"}` +
		`{"execute":"human-monitor-command","arguments":{"command-line":"info usernet"}}`)); err != nil {
		return "", "", err
	}
	decoder := json.NewDecoder(conn)
	for {
		var answer struct{ Return any }
		if err := decoder.Decode(&answer); err != nil {
			return "", "", err
		}
		text, ok := answer.Return.(string)
		if !ok {
			continue // the greeting, an event, or the first answer
		}
		ports := map[string]string{}
		for _, match := range forwarded.FindAllStringSubmatch(text, -1) {
			ports[match[2]] = "127.0.0.1:" + match[1]
		}
		agent, csi = ports[strconv.Itoa(guest.AgentPort)], ports[strconv.Itoa(guest.CSIPort)]
		if agent == "" || csi == "" {
			return "", "", fmt.Errorf("QEMU forwards no ports: %q", text)
		}
		return agent, csi, nil
	}
}

// Console returns the end of what the guest's console showed.
func (m *Machine) Console() string {
	data, err := os.ReadFile(m.cfg.console())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	return string(data[max(0, len(data)-8000):])
}

// ProcessorTime is how long the machine has kept processors busy, once it is closed.
func (m *Machine) ProcessorTime() time.Duration {
	state := m.process.ProcessState
	return state.UserTime() + state.SystemTime()
}

// Close pulls the plug.
func (m *Machine) Close() {
	_ = m.process.Process.Kill() // one that has ended already is as good
	<-m.ended
	if m.Guest != nil {
		m.Guest.HTTP.CloseIdleConnections()
	}
}
