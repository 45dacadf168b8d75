package instances

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

const (
	// confirmAfter is the least time between the two answers that a server does not exist.
	confirmAfter = 3 * time.Second
	// markAge is for how long the first of them is remembered.
	markAge = 10 * time.Minute
	// askedAtOnce bounds how many missing servers are asked for at one time.
	askedAtOnce = 16
	// missingAge is for how long the metric tells of missing servers.
	missingAge = time.Minute
)

// vanished decides whether a server that the list lacks is gone.
type vanished struct {
	instances *Instances
	nodes     corelisters.NodeLister // nil: unknown
	heldBack  prometheus.Counter
	claimants claimants

	mu      sync.Mutex
	denied  map[string]time.Time // by the server's UUID: when the API first said that it does not exist
	missing int                  // servers of Nodes, when last counted
	counted time.Time
}

func newVanished(i *Instances) (*vanished, error) {
	v := &vanished{
		instances: i, denied: map[string]time.Time{},
		heldBack: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcloud_node_deletions_held_back_total",
			Help: "Times a Node was kept although its server was not found, because nothing proved that the credentials are those of its account.",
		}),
	}
	if i.config.Registerer == nil {
		return v, nil
	}
	missing := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "upcloud_node_servers_missing",
		Help: "Nodes whose server was not in the list of all servers when one of them was last looked for.",
	}, v.missingNow)
	return v, errors.Join(i.config.Registerer.Register(missing), i.config.Registerer.Register(v.heldBack))
}

func (v *vanished) missingNow() float64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(v.counted) > missingAge {
		return 0
	}
	return float64(v.missing)
}

// confirm asks about the server of a node until it is certain that it is gone, or not. A Node that must be kept, by keep, is an
// error. Otherwise the API must answer "not found" to the server's own UUID twice, some seconds apart, and a list that is read
// after the first answer must lack it.
func (v *vanished) confirm(ctx context.Context, node *v1.Node) (gone bool, err error) {
	id, err := v.instances.serverID(ctx, node)
	if err != nil {
		return false, err
	}
	found, err := v.keep(ctx, node, id, lifecycleAge)
	if err != nil {
		return false, err
	}
	if gone, err := v.deniedTwice(ctx, id, found.notReady); err != nil || !gone {
		return false, err
	}
	if _, err := v.keep(ctx, node, id, confirmAfter); err != nil {
		return false, err
	}
	if node.DeletionTimestamp == nil { // a Node that a finalizer holds is asked about in every pass, which need not wait again
		v.found(id)
	}
	return true, nil
}

// deniedTwice asks the API for the server until it has denied it for confirmAfter. While it waits, it asks for the others, so that
// their nodes need not each wait for themselves.
func (v *vanished) deniedTwice(ctx context.Context, id string, others []string) (gone bool, err error) {
	for {
		denied, gone, err := v.ask(ctx, id)
		if err != nil || !gone {
			return false, err
		}
		if denied >= confirmAfter {
			return true, nil
		}
		v.askAll(ctx, others)
		others = nil
		if err := sleep(ctx, confirmAfter-denied); err != nil {
			return false, err
		}
	}
}

// unchanged is an error if the Node is another one by now, or another server's: it is deleted by its name alone.
func (v *vanished) unchanged(node *v1.Node) error {
	if v.nodes == nil {
		return nil
	}
	current, err := v.nodes.Get(node.Name)
	if err != nil {
		return err
	}
	asked, err := namedServer(node)
	named, currentErr := namedServer(current)
	if err != nil || currentErr != nil || current.UID != node.UID || named != asked {
		return fmt.Errorf("node %s was made anew while its server was looked for: it is looked for again", node.Name)
	}
	return nil
}

// found forgets that a server was missing.
func (v *vanished) found(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.denied, id)
}

// ask asks the API for the server, and remembers a "not found". denied is for how long the API has been saying that: zero when
// this was the first time.
func (v *vanished) ask(ctx context.Context, id string) (denied time.Duration, gone bool, err error) {
	_, err = v.instances.cloud.Server(ctx, id)
	if err == nil {
		v.found(id)
		return 0, false, nil
	}
	if !errors.Is(err, cloud.ErrNotFound) {
		return 0, false, err
	}
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	first, known := v.denied[id]
	if !known || now.Sub(first) > markAge {
		maps.DeleteFunc(v.denied, func(_ string, first time.Time) bool { return now.Sub(first) > markAge })
		first = now
		v.denied[id] = now
	}
	return now.Sub(first), true, nil
}

// askAll asks for other servers that are missing, so that their nodes need not each wait for themselves.
func (v *vanished) askAll(ctx context.Context, ids []string) {
	var asking errgroup.Group
	asking.SetLimit(askedAtOnce)
	for _, id := range ids {
		asking.Go(func() error {
			_, _, _ = v.ask(ctx, id) // what cannot be told now is asked again when its own node's turn comes
			return nil
		})
	}
	_ = asking.Wait()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
