package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
)

type options struct {
	listen, metadataListen    []string
	profile                   string
	disks, disksDir           string
	loadBalancers             string
	loadBalancerInterface     string
	loadBalancersDir          string
	loadBalancerRules         string
	routers                   string
	state                     string
	publicNetwork             string
	username, password, token string
	httpImport                bool
	tls                       bool
	tlsCert, tlsKey           string
	startTime, clock          string
	faults                    []string
	logRequests               bool
	version                   bool
}

const synopsis = `upcloud-sim is a local UpCloud: its API, its instance metadata service and, on request, real disks and
real load balancers. Any UpCloud client works against it; no account is needed and nothing leaves this machine.

Usage:
  upcloud-sim [flags]

Examples:
  # The API alone, answering at once
  upcloud-sim

  # As slow as the real cloud
  upcloud-sim --profile realistic --log-requests

  # With real disks (root) and real load balancers (package haproxy)
  upcloud-sim --disks loop --disks-dir /var/lib/upcloud-sim --load-balancers haproxy

  # Point a client of the official SDK to it
  export UPCLOUD_DEBUG_API_BASE_URL=http://127.0.0.1:8100 UPCLOUD_USERNAME=simulator UPCLOUD_PASSWORD=simulator

  # Make the next three attaches answer 503 after they took effect
  curl -X POST http://127.0.0.1:8100/_simulator/faults \
    -d '{"operation":"POST /server/{uuid}/storage/attach","status":503,"after_effect":true,"count":3}'

  # What there is survives a restart
  upcloud-sim --disks loop --state /var/lib/upcloud-sim

  # From the start, answer lists of storages as they were half a minute ago
  upcloud-sim --fault "operation=GET /storage,stale=30s"

  # Time stands still until it is moved
  upcloud-sim --profile realistic --clock manual
  curl -X POST http://127.0.0.1:8100/_simulator/clock -d '{"advance":"147s"}'

Flags:
`

func parse(args []string, out io.Writer) (*options, error) {
	var o options
	f := pflag.NewFlagSet("upcloud-sim", pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(io.Discard)
	f.StringSliceVar(&o.listen, "listen", []string{"127.0.0.1:8100"}, "`address` to serve the API on; can be repeated")
	f.StringSliceVar(&o.metadataListen, "metadata-listen", nil,
		"`address` to serve instance metadata on, such as 169.254.169.254:80 in a network namespace of its own; the server is told by\n"+
			"the address the request comes from; can be repeated (default: none)")
	f.StringVar(&o.profile, "profile", "instant", "how long transitions take: instant, fast (a hundredth of the real time) or realistic")
	f.StringVar(&o.username, "username", "", "user that the API accepts (default: simulator)")
	f.StringVar(&o.password, "password", "", "that user's password (default: simulator)")
	f.StringVar(&o.token, "token", "", "token that the API accepts (default: ucat_simulator)")
	f.StringVar(&o.disks, "disks", "none", "what storages are made of: none (API only), loop (sparse files on loop devices; needs root), or\n"+
		"qemu (sparse files, hot-plugged into the QEMU machines that listen at FOLDER/servers/UUID/qmp.sock)")
	f.StringVar(&o.disksDir, "disks-dir", "", "`folder` for the disks; with --disks loop links to a server's disks appear in\n"+
		"FOLDER/servers/UUID/by-id (default: a temporary folder)")
	f.StringVar(&o.loadBalancers, "load-balancers", "none",
		"what load balancers are made of: none (API only) or haproxy (real traffic)")
	f.StringVar(&o.loadBalancerInterface, "load-balancer-interface", "",
		"network `interface` that gets the load balancers' addresses (default: they listen on 127.64.0.1 and up)")
	f.StringVar(&o.loadBalancerRules, "load-balancer-rules", "first", "which rules of a frontend act on a request: first (the first that matches, and none after it, as\n"+
		"UpCloud's guide says) or all (those that match, as HAProxy does by itself)")
	f.StringVar(&o.loadBalancersDir, "load-balancers-dir", "", "`folder` for HAProxy's files (default: a temporary folder)")
	f.StringVar(&o.routers, "routers", "none", "what routers are made of: none (API only) or kernel (static routes in the routing table of this\n"+
		"network namespace, which must be the private networks' gateway)")
	f.StringVar(&o.state, "state", "", "`folder` in which everything outlives the program: the account, and the disks' bytes unless --disks-dir says\n"+
		"where they are (default: each start begins with an empty account)")
	f.StringVar(&o.publicNetwork, "public-network", "198.18.0.0/15", "`prefix` that simulated public IPv4 addresses come from")
	f.BoolVar(&o.httpImport, "http-import", false,
		"fetch from web servers what is imported into storages (otherwise such imports fail)")
	f.BoolVar(&o.tls, "tls", false, "serve the API over HTTPS, with a certificate of its own making unless --tls-cert names one")
	f.StringVar(&o.tlsCert, "tls-cert", "", "PEM `file` with the certificate for HTTPS")
	f.StringVar(&o.tlsKey, "tls-key", "", "PEM `file` with its key")
	f.StringVar(&o.startTime, "start-time", "", "RFC 3339 `time` at which the simulated clock starts (default: now)")
	f.StringVar(&o.clock, "clock", "machine", "what moves the simulated time: machine, or manual (only POST /_simulator/clock does)")
	f.StringArrayVar(&o.faults, "fault", nil, "`fault` that befalls requests from the start, such as\n"+
		"\"operation=POST /storage/{uuid}/clone,status=503,count=3\", or an object as POST /_simulator/faults takes it; can be repeated")
	f.BoolVar(&o.logRequests, "log-requests", false, "write a line for each request")
	f.BoolVar(&o.version, "version", false, "show the version and end")
	f.Usage = func() { fmt.Fprint(out, synopsis, f.FlagUsages()) }
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: see upcloud-sim --help", err)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q: see upcloud-sim --help", f.Arg(0))
	}
	return &o, nil
}

// config checks the options and turns those that need no resource into a configuration.
func (o *options) config() (simulator.Config, error) {
	var cfg simulator.Config
	var err error
	if cfg.Profile, err = simulator.ParseProfile(o.profile); err != nil {
		return cfg, fmt.Errorf("--profile: %w", err)
	}
	if cfg.PublicNetwork, err = netip.ParsePrefix(o.publicNetwork); err != nil || !cfg.PublicNetwork.Addr().Is4() || cfg.PublicNetwork.Bits() > 24 {
		return cfg, fmt.Errorf("--public-network %q: give an IPv4 prefix of /24 or larger, such as 198.18.0.0/15",
			o.publicNetwork)
	}
	if err := oneOf("--disks", o.disks, "none", "loop", "qemu"); err != nil {
		return cfg, err
	}
	if err := oneOf("--load-balancers", o.loadBalancers, "none", "haproxy"); err != nil {
		return cfg, err
	}
	if err := oneOf("--load-balancer-rules", o.loadBalancerRules, string(haproxy.FirstRule), string(haproxy.AllRules)); err != nil {
		return cfg, err
	}
	if err := oneOf("--routers", o.routers, "none", "kernel"); err != nil {
		return cfg, err
	}
	if o.disksDir != "" && o.disks == "none" {
		return cfg, errors.New("--disks-dir: only --disks loop and --disks qemu have a folder; add one of them, or leave --disks-dir out")
	}
	if o.loadBalancerInterface != "" && o.loadBalancers != "haproxy" {
		return cfg, errors.New("--load-balancer-interface: only --load-balancers haproxy listens; add it, or leave the interface out")
	}
	if (o.username == "") != (o.password == "") {
		return cfg, errors.New("--username and --password go together: give both or none")
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return cfg, errors.New("--tls-cert and --tls-key go together: give both or none")
	}
	if cfg.Clock, err = o.simulatedClock(); err != nil {
		return cfg, err
	}
	for _, text := range o.faults {
		fault, err := simulator.ParseFault(text)
		if err != nil {
			return cfg, fmt.Errorf("--fault %q: %w", text, err)
		}
		cfg.Faults = append(cfg.Faults, fault)
	}
	if o.httpImport {
		cfg.ImportClient = &http.Client{}
	}
	if len(o.listen) == 0 {
		return cfg, errors.New("--listen: give an address such as 127.0.0.1:8100")
	}
	for flag, list := range map[string][]string{"--listen": o.listen, "--metadata-listen": o.metadataListen} {
		for _, address := range list {
			if _, _, err := net.SplitHostPort(address); err != nil {
				return cfg, fmt.Errorf("%s %q: give host and port, such as 127.0.0.1:8100", flag, address)
			}
		}
	}
	cfg.StateDir = o.state
	cfg.Username, cfg.Password, cfg.Token = o.username, o.password, o.token
	if cfg.Username == "" && cfg.Token == "" {
		cfg.Username, cfg.Password, cfg.Token = simulator.DefaultUsername, simulator.DefaultPassword, simulator.DefaultToken
	}
	return cfg, nil
}

// simulatedClock returns the clock asked for; nil: the machine's.
func (o *options) simulatedClock() (simulator.Clock, error) {
	if err := oneOf("--clock", o.clock, "machine", "manual"); err != nil {
		return nil, err
	}
	if o.startTime == "" {
		if o.clock == "manual" {
			return simulator.NewManualClockAt(time.Now()), nil
		}
		return nil, nil
	}
	start, err := time.Parse(time.RFC3339, o.startTime)
	if err != nil {
		return nil, fmt.Errorf("--start-time %q: give an RFC 3339 time such as 2026-01-05T09:00:00Z", o.startTime)
	}
	if o.clock == "manual" {
		return simulator.NewManualClockAt(start), nil
	}
	return simulator.NewClockAt(start), nil
}

func oneOf(flag, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return fmt.Errorf("%s %q: choose one of %s", flag, value, strings.Join(known, ", "))
}
