package simulator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Config says how a simulator is to behave. The zero value is good for tests.
type Config struct {
	// Profile says how long transitions take; the zero value is Instant.
	Profile Profile
	// Clock is where time comes from; nil is the machine's clock.
	Clock Clock

	// Seed other than zero makes the UUIDs of resources the same in every run that makes the same requests, one after the other. Zero: the
	// UUIDs are random.
	Seed uint64

	// Username and Password, and Token, are the accepted credentials. All empty: "simulator" and "simulator", and the
	// token "ucat_simulator".
	Username, Password, Token string

	// Faults are there from the start, as if given to Inject.
	Faults []Fault

	// Limits are the account's; nil: large ones.
	Limits *Limits

	// Disks gives storages bytes; nil: storages have none.
	Disks DiskPlane
	// LoadBalancers makes load balancers carry traffic; nil: they are API only.
	LoadBalancers LoadBalancerPlane

	// Routers makes static routes carry traffic; nil: they are API only.
	Routers RouterPlane
	// MaxStaticRoutes is how many static routes of users a router may have; zero: 50.
	MaxStaticRoutes int

	// ImportClient fetches what is imported into storages from web servers; nil: such imports fail.
	ImportClient *http.Client

	// StateDir is a folder in which the state outlives the process: it is written soon after changes, and by Close. The
	// disks must be of a kind that keeps its files (see DiskKeeper). Empty: each simulator starts with an empty account.
	StateDir string

	// PublicNetwork is where simulated public IPv4 addresses come from, /24 or larger: one sixteenth for each zone. The
	// zero value is 198.18.0.0/15, set aside for tests by RFC 2544.
	PublicNetwork netip.Prefix

	// RequestLog is called once a request, when its answer stands; nil: not at all.
	RequestLog func(Request)

	// ErrorLog is told what goes wrong in the data planes while no request waits for it; nil: standard error.
	ErrorLog func(error)
}

// Credentials accepted when the configuration names none.
const (
	DefaultUsername = "simulator"
	DefaultPassword = "simulator"
	DefaultToken    = "ucat_simulator"
)

// Simulator is one UpCloud account and the cloud around it.
type Simulator struct {
	cfg     Config
	clock   Clock
	handler http.Handler

	recorder recorder
	faults   faults
	uuids    *uuidSource

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	operations sync.WaitGroup

	mu        sync.Mutex // guards what follows
	closed    bool
	events    eventQueue
	seq       uint64
	eventTime time.Time
	timer     Timer
	timerAt   time.Time
	history   history
	keeper    *keeper    // nil: the state goes with the process
	restored  *keptState // where the state came from; nil: it is new
	doomed    []string   // UUIDs of what is to end in the state error

	state
}

// state is everything the API shows.
type state struct {
	zones         []zone
	storages      table[storage]
	servers       table[server]
	networks      table[network]
	routers       table[router]
	addresses     map[netip.Addr]*ipAddress // public and utility addresses; private ones are their network's own
	interfaces    map[string]*nic           // by MAC
	loadBalancers table[loadBalancer]
	bundles       table[certificateBundle]
	tags          table[tag] // by tagKey
	groups        table[serverGroup]
	tokens        table[apiToken]
	subaccounts   table[subaccount]    // by user name
	imports       table[storageImport] // by storage
	fileStorages  table[fileStorage]
	lastCreation  time.Time // see creation
	nextMAC       uint32
	copies        map[string]diskCopy // under way, by UUID of what is filled
	dns           map[string]string   // where names outside of the cloud lead
	authority     *keyPair            // issues certificates; nil: none yet
}

// New returns a simulator with the zones, plans, public networks, templates and nothing else. Close it when done.
func New(cfg Config) (*Simulator, error) {
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if cfg.Username == "" && cfg.Password == "" && cfg.Token == "" {
		cfg.Username, cfg.Password, cfg.Token = DefaultUsername, DefaultPassword, DefaultToken
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return nil, errors.New("simulator: Username and Password go together: set both or none")
	}
	if !cfg.PublicNetwork.IsValid() {
		cfg.PublicNetwork = netip.MustParsePrefix("198.18.0.0/15")
	}
	if n := cfg.PublicNetwork; !n.Addr().Is4() || n.Bits() > 24 {
		return nil, fmt.Errorf("simulator: PublicNetwork %s: choose an IPv4 network of /24 or larger", n)
	}
	if cfg.Profile < Instant || cfg.Profile > Realistic {
		return nil, fmt.Errorf("simulator: unknown profile %d", cfg.Profile)
	}
	s := &Simulator{cfg: cfg, clock: cfg.Clock, uuids: newUUIDSource(cfg.Seed)}
	for _, f := range cfg.Faults {
		if err := f.validate(); err != nil {
			return nil, fmt.Errorf("simulator: %w", err)
		}
		s.faults.add(f)
	}
	s.recorder.counts = Counts{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.state.init(cfg.PublicNetwork.Masked())
	s.handler = s.newHandler()
	if plane, ok := cfg.LoadBalancers.(LoadBalancerWatcher); ok {
		plane.Watch(s.loadBalancerFailed)
	}
	if cfg.StateDir != "" {
		if err := s.start(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// start goes on from the state that is kept, and keeps it from now on.
func (s *Simulator) start() error {
	if err := s.openState(); err != nil {
		s.cancel()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restored != nil {
		if err := s.resume(); err != nil {
			s.closed = true
			s.cancel()
			return errors.Join(err, s.keeper.lock.Close())
		}
		s.runDue()
	}
	go s.keepState() // until Close
	return nil
}

// Close ends what is going on, waits for it, and removes what the data planes made. Requests that are waiting get no
// answer.
func (s *Simulator) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.stopTimer()
	s.mu.Unlock()

	s.cancel()
	s.operations.Wait()
	errs := []error{s.closeState()}
	if s.cfg.LoadBalancers != nil {
		errs = append(errs, s.cfg.LoadBalancers.Close())
	}
	if s.cfg.Routers != nil {
		errs = append(errs, s.cfg.Routers.Close())
	}
	if s.cfg.Disks != nil {
		errs = append(errs, s.cfg.Disks.Close())
	}
	return errors.Join(errs...)
}

func (s *Simulator) durationOf(d time.Duration) time.Duration { return s.cfg.Profile.of(d) }
