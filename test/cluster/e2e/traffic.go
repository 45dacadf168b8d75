package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// traffic is a website behind two load balancers, which a host on the internet asks all the time.
type traffic struct {
	suite
	node     string            // the one that is drained
	websites map[string]string // address of each Service
	figures  map[string]float64
	seen     string // what the last step came to
}

// services are the website's, by externalTrafficPolicy as the figures call it.
var services = map[string]string{"cluster": "web", "local": "web-local"}

const (
	deployment = "web"
	excluded   = corev1.LabelNodeExcludeBalancers
	leaving    = "ToBeDeletedByClusterAutoscaler"
	holding    = 100 // requests of each client that makes connections
)

func (s suite) trafficSteps() []steps.Step {
	t := &traffic{suite: s, websites: map[string]string{}, figures: map[string]float64{}}
	told := func(context.Context) (string, error) { return t.seen, nil }
	return []steps.Step{
		{Name: "loadbalancer-graceful.yaml: a website on both nodes answers behind two load balancers",
			Do: s.apply("loadbalancer-graceful.yaml"), Check: t.answers},
		{Name: "no request is lost while it is rolled over", Limit: 15 * time.Minute,
			Do: t.measured("rollout", t.rollOver), Check: told},
		{Name: "nor while a node is drained, leaves the load balancers, comes back, and is marked for removal by the autoscaler", Limit: 30 * time.Minute,
			Do: t.measured("drain", t.drain, t.exclude, t.putBack, t.markForRemoval), Check: told},
		{Name: "the node stays, and the load balancers go with their Services", Do: t.remove, Check: t.removed},
	}
}

// answers waits until the website runs on both nodes, and every member of both load balancers has had time to be found well.
func (t *traffic) answers(ctx context.Context) (string, error) {
	if _, err := t.rolledOut(ctx); err != nil {
		return "", err
	}
	var seen []string
	for policy, service := range services {
		balancer, err := t.LoadBalancer(ctx, t.namespace, service)
		if err != nil {
			return "", err
		}
		t.websites[policy] = "http://" + balancer.IP + "/"
		if all := members(balancer); len(all) != t.Nodes {
			return "", fmt.Errorf("the members of %s are %v, want %d nodes", service, all, t.Nodes)
		}
		seen = append(seen, policy+": "+t.websites[policy])
	}
	slices.Sort(seen)
	return strings.Join(seen, "\n"), t.holdFor(ctx, "before anything", 20)
}

// holdFor has the streams run until each client that makes connections has had a number of answers; a failed request is an error.
func (t *traffic) holdFor(ctx context.Context, phase string, requests int) error {
	return t.during(ctx, func(ctx context.Context, streams streams) error { return streams.hold(ctx, phase, requests) },
		func(policy string, got counts) error {
			if got.Failed > 0 {
				return fmt.Errorf("%s: %s: %s", policy, got, got.failures[0])
			}
			return nil
		})
}

// streams are one for each Service.
type streams map[string]*stream

func (s streams) phase(phase string) {
	for _, one := range s {
		one.during(phase)
	}
}

// hold waits until the streams have made some more requests.
func (s streams) hold(ctx context.Context, phase string, requests int) error {
	s.phase(phase)
	before := map[string]int{}
	for policy, one := range s {
		before[policy] = one.soFar().Connections
	}
	return until(ctx, func(context.Context) (string, error) {
		for policy, one := range s {
			if made := one.soFar().Connections - before[policy]; made < requests*clientsOfAKind {
				return "", fmt.Errorf("%s, the stream to %s made %d connections, want %d", phase, policy, made, requests*clientsOfAKind)
			}
		}
		return "", nil
	})
}

// during does something while a stream of requests goes to each Service, and has each judged in the end.
func (t *traffic) during(
	ctx context.Context, do func(context.Context, streams) error, judge func(policy string, got counts) error,
) (err error) {
	internet, err := machine.NamespaceOf(t.Status.InternetPID)
	if err != nil {
		return err
	}
	defer internet.Close()
	all := streams{}
	for policy, url := range t.websites {
		all[policy] = &stream{url: url, dial: internet.Dial}
		all[policy].start(ctx)
	}
	err = do(ctx, all)
	for policy, one := range all {
		err = errors.Join(err, judge(policy, one.stop()))
	}
	return err
}

// measured does things one after the other while requests are made, and counts those that failed: none may.
func (t *traffic) measured(what string, actions ...func(context.Context, streams) error) func(context.Context) error {
	return func(ctx context.Context) error {
		var seen []string
		err := t.during(ctx, func(ctx context.Context, streams streams) error {
			for _, action := range actions {
				if err := action(ctx, streams); err != nil {
					return err
				}
			}
			return nil
		}, func(policy string, got counts) error {
			t.figures[what+"_"+policy] = got.per10000()
			line := fmt.Sprintf("externalTrafficPolicy %s: %s", policy, got)
			seen = append(seen, line)
			if got.Failed > 0 {
				return fmt.Errorf("%s\n%s", line, strings.Join(got.failures, "\n"))
			}
			return nil
		})
		slices.Sort(seen)
		t.seen = strings.Join(seen, "\n")
		return errors.Join(err, t.writeFigures())
	}
}

// writeFigures writes what was measured to a file, for other programs.
func (t *traffic) writeFigures() error {
	text, err := json.MarshalIndent(map[string]any{"lb_failed_per_10000": t.figures}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.Project, "build", "e2e-traffic.json"), append(text, '\n'), 0o600)
}

func (t *traffic) rollOver(ctx context.Context, streams streams) error {
	streams.phase("in the roll-over")
	if _, err := t.Kubectl(ctx, nil, "rollout", "restart", "-n", t.namespace, "deployment/"+deployment); err != nil {
		return err
	}
	if err := until(ctx, t.rolledOut); err != nil {
		return err
	}
	return streams.hold(ctx, "after the roll-over", holding)
}

// rolledOut sees that the Pods of the current version are all there, available, and no others.
func (t *traffic) rolledOut(ctx context.Context) (string, error) {
	web, err := t.Client.AppsV1().Deployments(t.namespace).Get(ctx, deployment, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	pods, err := t.Client.CoreV1().Pods(t.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		return "", err
	}
	return "", complete(web, len(pods.Items))
}

func complete(web *appsv1.Deployment, pods int) error {
	want, is := *web.Spec.Replicas, web.Status
	if is.ObservedGeneration < web.Generation || is.UpdatedReplicas < want || is.AvailableReplicas < want || pods != int(want) {
		return fmt.Errorf("of %d Pods %d are of the current version and %d available; there are %d", want, is.UpdatedReplicas, is.AvailableReplicas, pods)
	}
	return nil
}

// drain takes a node's Pods off it, as before its machine is maintained: the website's, and the ccm's own.
func (t *traffic) drain(ctx context.Context, streams streams) error {
	pods, err := t.Client.CoreV1().Pods(t.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		return err
	}
	t.node = pods.Items[0].Spec.NodeName
	streams.phase("while " + t.node + " is drained")
	if _, err := t.Kubectl(ctx, nil, "drain", t.node, "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector", "app in (web, upcloud-ccm)",
		"--timeout", "5m"); err != nil {
		return err
	}
	return until(ctx, t.rolledOut)
}

func (t *traffic) exclude(ctx context.Context, streams streams) error {
	streams.phase("while " + t.node + " is taken off the load balancers")
	if _, err := t.Kubectl(ctx, nil, "label", "node", t.node, excluded+"="); err != nil {
		return err
	}
	return t.leaves(ctx, streams)
}

func (t *traffic) putBack(ctx context.Context, streams streams) error {
	streams.phase("while " + t.node + " is put back")
	if _, err := t.Kubectl(ctx, nil, "label", "node", t.node, excluded+"-"); err != nil {
		return err
	}
	return errors.Join(t.cordon(ctx, t.node, false), t.joins(ctx, streams))
}

func (t *traffic) markForRemoval(ctx context.Context, streams streams) error {
	streams.phase("while " + t.node + " is marked for removal")
	if _, err := t.Kubectl(ctx, nil, "taint", "node", t.node, leaving+"=1:NoSchedule"); err != nil {
		return err
	}
	return t.leaves(ctx, streams)
}

func (t *traffic) leaves(ctx context.Context, streams streams) error {
	if err := until(ctx, t.isMember(false)); err != nil {
		return err
	}
	return streams.hold(ctx, "without "+t.node, holding)
}

func (t *traffic) joins(ctx context.Context, streams streams) error {
	if err := until(ctx, t.isMember(true)); err != nil {
		return err
	}
	return streams.hold(ctx, "with "+t.node+" back", holding)
}

// isMember waits until the node is a member of both load balancers' backends that gets connections, or of none.
func (t *traffic) isMember(want bool) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		for _, service := range services {
			balancer, err := t.LoadBalancer(ctx, t.namespace, service)
			if err != nil {
				return "", err
			}
			weight, is := members(balancer)[t.node]
			if is != want || is && weight == 0 || balancer.OperationalState != "running" {
				return "", fmt.Errorf("the members of %s, which is %s, have the weights %v", service, balancer.OperationalState, members(balancer))
			}
		}
		return "", nil
	}
}

// members are a load balancer's, with their weights.
func members(balancer *steps.LoadBalancer) map[string]int {
	all := map[string]int{}
	for _, backend := range balancer.Backends {
		for _, member := range backend.Members {
			all[member.Name] = member.Weight
		}
	}
	return all
}

func (t *traffic) remove(ctx context.Context) error {
	if _, err := t.Kubectl(ctx, nil, "taint", "node", t.node, leaving+"-"); err != nil {
		return err
	}
	_, err := t.Kubectl(ctx, nil, "delete", "-n", t.namespace, "-f", filepath.Join(t.Project, "examples", "loadbalancer-graceful.yaml"), "--wait=false")
	return err
}

func (t *traffic) removed(ctx context.Context) (string, error) {
	list, err := t.Client.CoreV1().Services(t.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	balancers, err := t.Account.GetLoadBalancers(ctx, &request.GetLoadBalancersRequest{})
	if err != nil {
		return "", err
	}
	if len(list.Items)+len(balancers) > 0 {
		return "", fmt.Errorf("there are %d Services and %d load balancers", len(list.Items), len(balancers))
	}
	return "", nil
}
