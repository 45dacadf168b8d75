package cloud

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"k8s.io/klog/v2"
)

const (
	// noticeWithin is within what time a change to an attachment that was made elsewhere is noticed: ten minutes, less some
	// seconds for the calls.
	noticeWithin = 10*time.Minute - 10*time.Second
	// passAge is for how long one pass serves every reader.
	passAge = 20 * time.Second
	// otherServers is how many servers are asked in noticeWithin that have none of the cluster's volumes as far as is known.
	otherServers = 100
	// surveyPace bounds the calls to so many a second where a pass takes more than surveyBurst of them: after a start nothing is
	// known, and the account's limit of calls is for attaching and detaching first.
	surveyPace  = 20
	surveyBurst = 200
	// surveyReaders is how many of the calls are made at once.
	surveyReaders = 8
	// surveyTimeout bounds the question to one server, so that one that does not answer does not hold up the others.
	surveyTimeout = 20 * time.Second
)

// surveys keep the attachmentCache up to date. They work when someone reads, in passes that all readers share; nobody reads,
// no call is made. Each pass asks some of the servers that have the cluster's volumes, in turns, so that all have been asked
// within noticeWithin, and looks at those volumes whose place no server has named.
//
// Where the volumes are is found without knowing the cluster's Nodes: a volume names its server, which names its other
// volumes. Servers that have none of the volumes are asked too, at a slow pace: a volume may have been attached there by hand.
type surveys struct {
	passes *flights[struct{}]
	pace   *rate.Limiter

	// Only the pass that runs, and there is one at a time, touches what follows.
	began    time.Time
	complete bool
	period   time.Duration // between passes, by the longest of late
	owed     turns         // of the servers that have volumes
	owedElse turns         // of the others
	listed   time.Time     // when all servers were listed
	servers  []string      // all of the account
}

func newSurveys(c *Cloud) *surveys {
	return &surveys{passes: newFlights[struct{}](c.life, &c.work), pace: rate.NewLimiter(surveyPace, surveyBurst)}
}

// turns spreads servers evenly over the passes.
type turns float64

// next returns how many of so many servers have their turn in this pass, if all shall have had it in so many passes.
func (t *turns) next(servers, passes int) int {
	*t += turns(servers) / turns(passes)
	due := int(*t)
	*t -= turns(due)
	return min(due, servers)
}

// pass is one survey.
type pass struct {
	c     *Cloud
	work  *work
	began time.Time
	ids   []string // of the volumes
	turns int      // in so many passes every server has its turn
	// afterPause says that it is the first pass, or that there was none for noticeWithin.
	afterPause bool

	answered, failed atomic.Int32
}

// survey brings the attachmentCache up to date for the cluster's volumes among the account's disks.
func (c *Cloud) survey(ctx context.Context, disks []*Volume) error {
	_, err := c.surveys.passes.do(ctx, "", func(w *work) (struct{}, error) {
		s := c.surveys
		now := c.now()
		if s.complete && now.Sub(s.began) < passAge {
			return struct{}{}, nil
		}
		p := &pass{c: c, work: w, began: now, ids: c.wanted(disks)}
		p.turns, p.afterPause = s.begin(now)
		c.attached.begin(now, s.period, p.afterPause, disks)
		err := p.run()
		s.complete = err == nil
		return struct{}{}, err
	})
	return err
}

// begin notes the time of a pass, and returns in how many passes every server has its turn.
func (s *surveys) begin(now time.Time) (turns int, afterPause bool) {
	gap := now.Sub(s.began)
	s.began = now
	if gap >= noticeWithin {
		s.period = 0
		return 1, true
	}
	s.period = max(gap, s.period/2)
	return max(1, int(noticeWithin/max(s.period, time.Second))), false
}

// run asks servers first, as one answers for many volumes, and looks at what is left.
func (p *pass) run() error {
	s := p.c.surveys
	holders, due := p.c.attached.holders(p.ids)
	due = append(due, oldest(holders, due, s.owed.next(len(holders), p.turns))...)
	if err := p.ask(due); err != nil {
		return err
	}
	if err := p.ask(p.others()); err != nil {
		return err
	}
	return p.look()
}

// others returns servers to be asked that have none of the volumes, as far as is known. After a start that is every server of
// the account, if that takes no more calls than to look at the volumes; later those that are new, and others in turns.
func (p *pass) others() []string {
	s := p.c.surveys
	var joined []string
	if p.began.Sub(s.listed)+s.period >= noticeWithin {
		set, err := p.c.ServersSince(p.work.ctx, p.began.Add(-serverSnapshotAge))
		if err != nil {
			klog.FromContext(p.work.ctx).Info("Volumes attached by hand to servers without other volumes may be missed", "err", err)
			return nil
		}
		joined = s.list(p.began, set)
		p.c.attached.forgetServers(s.servers, p.began.Add(-noticeWithin))
	}
	others := p.c.attached.without(p.ids, s.servers)
	if p.afterPause {
		if len(others) > max(otherServers, len(p.c.attached.unknown(p.ids))) {
			return nil
		}
		return names(others)
	}
	return append(joined, oldest(others, joined, s.owedElse.next(min(len(others), otherServers), p.turns))...)
}

// list takes all servers of the account, and returns those that were not in the list before, if there was one.
func (s *surveys) list(now time.Time, set *ServerSet) (joined []string) {
	known := make(map[string]bool, len(s.servers))
	for _, id := range s.servers {
		known[id] = true
	}
	first := s.listed.IsZero()
	s.listed, s.servers = now, set.ids()
	if first {
		return nil
	}
	joined = slices.DeleteFunc(slices.Clone(s.servers), func(id string) bool { return known[id] })
	return joined[:min(len(joined), otherServers)]
}

// askedServer is a server and when it was asked last.
type askedServer struct {
	id    string
	asked time.Time
}

// oldest returns so many servers, those first that were asked longest ago, without those that are due anyway.
func oldest(servers []askedServer, due []string, count int) []string {
	slices.SortFunc(servers, func(a, b askedServer) int {
		return cmp.Or(a.asked.Compare(b.asked), cmp.Compare(a.id, b.id))
	})
	ids := slices.DeleteFunc(names(servers), func(id string) bool { return slices.Contains(due, id) })
	return ids[:min(max(0, count-len(due)), len(ids))]
}

func names(servers []askedServer) []string {
	ids := make([]string, len(servers))
	for i, server := range servers {
		ids[i] = server.id
	}
	return ids
}

// ask asks servers for their disks.
func (p *pass) ask(servers []string) error {
	asking, ctx := errgroup.WithContext(p.work.ctx)
	asking.SetLimit(surveyReaders)
	for _, server := range servers {
		asking.Go(func() error { return p.askServer(ctx, server) })
	}
	return asking.Wait()
}

// askServer asks one server, unless it has been asked in this pass. Its answer is noted where it is read. One that fails is
// left for its next turn; if what is known of its volumes gets too old meanwhile, they are looked at themselves.
func (p *pass) askServer(ctx context.Context, server string) error {
	if !p.c.attached.ask(server, p.began) {
		return nil
	}
	p.work.note("servers are being asked for their volumes")
	if err := p.pause(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	looked := p.c.now()
	_, err := p.c.serverDetails(bounded, server)
	if errors.Is(err, ErrNotFound) {
		p.c.attached.serverGone(server, looked)
		err = nil
	}
	if err == nil || ctx.Err() != nil {
		return p.count(err)
	}
	klog.FromContext(ctx).Info("A server cannot be read; its volumes are looked at one by one", "server", server, "err", err)
	return p.count(err)
}

// pause waits until the next call may be made.
func (p *pass) pause(ctx context.Context) error {
	now := p.c.now()
	return sleep(ctx, p.c.surveys.pace.ReserveN(now, 1).DelayFrom(now))
}

// count returns the error where nothing else than errors came: then the API is out of reach, and to go on is of no use.
func (p *pass) count(err error) error {
	if err == nil {
		p.answered.Add(1)
		return nil
	}
	if p.failed.Add(1) >= surveyReaders && p.answered.Load() == 0 || p.work.ctx.Err() != nil {
		return err
	}
	return nil
}

// look looks at each volume whose place is not known, and asks the server that it names, which names others. In any order but
// that of their making: neighbours are likely to be at one server.
func (p *pass) look() error {
	unknown := p.c.attached.unknown(p.ids)
	rand.Shuffle(len(unknown), func(i, j int) { unknown[i], unknown[j] = unknown[j], unknown[i] })
	looking, ctx := errgroup.WithContext(p.work.ctx)
	looking.SetLimit(surveyReaders)
	for _, id := range unknown {
		looking.Go(func() error { return p.lookAt(ctx, id) })
	}
	return looking.Wait()
}

func (p *pass) lookAt(ctx context.Context, id string) error {
	if _, known := p.c.attached.believed(id); known {
		return nil
	}
	p.work.note("volumes are being looked at one by one, as no server has named them")
	if err := p.pause(ctx); err != nil {
		return err
	}
	looked := p.c.now()
	volume, err := p.c.volume(ctx, id)
	if errors.Is(err, ErrNotFound) {
		p.c.attached.sawDisk(id, nil, looked)
		return p.count(nil)
	}
	if err != nil {
		return p.count(err)
	}
	for _, server := range volume.ServerIDs {
		if err := p.askServer(ctx, canonicalID(server)); err != nil {
			return err
		}
	}
	return p.count(nil)
}
