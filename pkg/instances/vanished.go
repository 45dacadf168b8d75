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
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// DefaultMaxMissing is the share of nodes, in percent, from which on missing servers are not believed to be gone: the
// credentials may be another account's.
const DefaultMaxMissing = 30

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

	mu      sync.Mutex
	denied  map[string]time.Time // by the server's UUID: when the API first said that it does not exist
	missing int                  // of nodes' servers, when last counted
	counted time.Time
}

func newVanished(i *Instances) (*vanished, error) {
	v := &vanished{
		instances: i, denied: map[string]time.Time{},
		heldBack: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcloud_node_deletions_held_back_total",
			Help: "Times a Node was kept although its server was not found, because too many were missing at once.",
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

// confirm asks about the server of a node until it is certain that it is gone, or not. While the list lacks the servers of
// many nodes, nobody is believed. Else the server itself must be unknown to the API twice, some seconds apart, and to a list
// that is read after the first time.
func (v *vanished) confirm(ctx context.Context, node *v1.Node) (gone bool, err error) {
	id, err := v.instances.serverID(ctx, node)
	if err != nil {
		return false, err
	}
	others, err := v.fewMissing(ctx, node, id, lifecycleAge)
	if err != nil {
		return false, err
	}
	for {
		denied, gone, err := v.ask(ctx, id)
		if err != nil || !gone {
			return false, err
		}
		if denied >= confirmAfter {
			break
		}
		v.askAll(ctx, others)
		others = nil
		if err := sleep(ctx, confirmAfter-denied); err != nil {
			return false, err
		}
	}
	if _, err := v.fewMissing(ctx, node, id, confirmAfter); err != nil {
		return false, err
	}
	v.found(id)
	return true, nil
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

// fewMissing returns the other nodes' servers that the list of servers lacks. It is an error if they are many: two may always
// be missing, unless they are all there are; so may the only one, unless nobody has seen it yet.
func (v *vanished) fewMissing(ctx context.Context, node *v1.Node, id string, age time.Duration) (others []string, err error) {
	set, err := v.instances.cloud.ServersSince(ctx, time.Now().Add(-age))
	if err != nil {
		return nil, err
	}
	if _, listed := set.Server(id); listed {
		return nil, fmt.Errorf("node %s: the API lists server %s after all", node.Name, id)
	}
	ours := v.ours()
	for _, other := range ours {
		if _, listed := set.Server(other); !listed && other != id {
			others = append(others, other)
		}
	}
	missing, limit := len(others)+1, v.instances.config.MaxMissing
	v.mu.Lock()
	defer v.mu.Unlock()
	v.missing, v.counted = missing, time.Now()
	all := missing >= len(ours) && (missing > 1 || initializing(node))
	if limit >= 100 || !all && (missing <= 2 || missing*100 < limit*len(ours)) {
		return others, nil
	}
	v.heldBack.Inc()
	message := fmt.Sprintf("The UpCloud API does not list server %s, but the servers of %d of %d nodes are missing at once, so the Node is "+
		"kept: check that the credentials are those of the nodes' account; if the servers are gone, delete the Nodes with kubectl, or "+
		"raise data.maxMissingServersPercent, which is %d", id, missing, len(ours), limit)
	v.instances.events.warn(node, ReasonHeldBack, message)
	return nil, fmt.Errorf("node %s: %s", node.Name, message)
}

// ours are the servers of all nodes that name theirs.
func (v *vanished) ours() (ids []string) {
	if v.nodes == nil {
		return nil
	}
	nodes, err := v.nodes.List(labels.Everything())
	if err != nil {
		return nil
	}
	for _, node := range nodes {
		if !v.instances.config.Scope.Matches(labels.Set(node.Labels)) {
			continue
		}
		if id, err := namedServer(node); err == nil && id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
