package steps

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const routesNamespace = "routes"

// routes shows that Pods on two nodes talk without an overlay network, because the CCM keeps the router's static routes.
type routes struct {
	*Runner
	pods []corev1.Pod // one on each of two nodes
}

// Routes are the steps that show it. They need two nodes.
func (r *Runner) Routes() []Step {
	if r.Nodes < 2 {
		return nil
	}
	s := &routes{Runner: r}
	return []Step{
		{Name: "each Node's Pod network is a static route on the router of the account", Check: s.routed},
		{Name: "a Pod reaches one on another node through the router, under its own address",
			Do: s.makePods, Check: s.talk},
		{Name: "without the routes it does not", Check: s.cut},
		{Name: "the CCM makes the routes again, and the Pods talk", Check: func(ctx context.Context) (string, error) {
			if _, err := s.routed(ctx); err != nil {
				return "", err
			}
			return s.talk(ctx)
		}},
		{Name: "the Pods of this are gone", Do: s.remove, Check: s.removed},
	}
}

// router is the account's own router. Others are UpCloud's.
func (s *routes) router(ctx context.Context) (*upcloud.Router, error) {
	routers, err := s.Account.GetRouters(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(routers.Routers, func(r upcloud.Router) bool { return r.Type == "normal" })
	if i < 0 {
		return nil, fmt.Errorf("the account has no router")
	}
	return &routers.Routers[i], nil
}

func (s *routes) routed(ctx context.Context) (string, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return "", err
	}
	router, err := s.router(ctx)
	if err != nil {
		return "", err
	}
	var seen []string
	for _, node := range nodes {
		address := internalAddress(node)
		i := slices.IndexFunc(router.StaticRoutes, func(route upcloud.StaticRoute) bool { return route.Route == node.Spec.PodCIDR })
		if i < 0 || router.StaticRoutes[i].Nexthop != address {
			return "", fmt.Errorf("the router's routes are %+v: Node %s needs %s via %s", router.StaticRoutes, node.Name, node.Spec.PodCIDR, address)
		}
		seen = append(seen, fmt.Sprintf("%s  %s  via %s (%s)", router.StaticRoutes[i].Name, node.Spec.PodCIDR, address, node.Name))
	}
	return strings.Join(seen, "\n"), nil
}

func internalAddress(node corev1.Node) string {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	return ""
}

// makePods makes a Pod on each of two nodes. It answers with the address that it sees a request come from.
func (s *routes) makePods(ctx context.Context) error {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	manifest := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + routesNamespace + "}\n"
	for i, node := range nodes[:2] {
		manifest += fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: talker-%d, namespace: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers:
    - name: talker
      image: busybox:1.35
      imagePullPolicy: IfNotPresent
      command: [/bin/sh, -ec, 'mkdir -p /tmp/www/cgi-bin; printf "#!/bin/sh\necho\necho \$REMOTE_ADDR\n" > /tmp/www/cgi-bin/whoami;
        chmod +x /tmp/www/cgi-bin/whoami; exec httpd -f -p 8080 -h /tmp/www']
`, i+1, routesNamespace, node.Name)
	}
	_, err = s.Kubectl(ctx, []byte(manifest), "apply", "-f", "-")
	return err
}

func (s *routes) findPods(ctx context.Context) error {
	pods, err := s.Client.CoreV1().Pods(routesNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Status.PodIP == "" {
			return fmt.Errorf("Pod %s has no address: %s", pod.Name, pod.Status.Phase)
		}
	}
	if len(pods.Items) != 2 {
		return fmt.Errorf("there are %d Pods, want 2", len(pods.Items))
	}
	s.pods = pods.Items
	return nil
}

// talk has each Pod ask the other who it is.
func (s *routes) talk(ctx context.Context) (string, error) {
	if err := s.findPods(ctx); err != nil {
		return "", err
	}
	var seen []string
	for i := range s.pods {
		from, to := s.pods[i], s.pods[1-i]
		heard, err := s.ask(ctx, from, to)
		if err != nil {
			return "", err
		}
		if heard != from.Status.PodIP {
			return "", fmt.Errorf("Pod %s is %s, and %s hears from %q", from.Name, from.Status.PodIP, to.Name, heard)
		}
		seen = append(seen, fmt.Sprintf("%s on %s hears from %s on %s", to.Status.PodIP, to.Spec.NodeName, heard, from.Spec.NodeName))
	}
	return strings.Join(seen, "\n"), nil
}

// ask returns the address under which a Pod's request reaches another.
func (s *routes) ask(ctx context.Context, from, to corev1.Pod) (string, error) {
	heard, err := s.Kubectl(ctx, nil, "exec", "-n", routesNamespace, from.Name, "--",
		"timeout", "3", "wget", "-q", "-O", "-", "http://"+to.Status.PodIP+":8080/cgi-bin/whoami")
	return strings.TrimPrefix(strings.Trim(strings.TrimSpace(heard), "[]"), "::ffff:"), err
}

// cut takes the routes away, and finds that one Pod does not reach the other any more. The CCM may be quicker: then it is done
// again.
func (s *routes) cut(ctx context.Context) (string, error) {
	router, err := s.router(ctx)
	if err != nil {
		return "", err
	}
	if _, err := s.Account.ModifyRouter(ctx, &request.ModifyRouterRequest{UUID: router.UUID, StaticRoutes: &[]upcloud.StaticRoute{}}); err != nil {
		return "", err
	}
	if heard, err := s.ask(ctx, s.pods[0], s.pods[1]); err == nil {
		return "", fmt.Errorf("Pod %s reached the other, which heard from %s", s.pods[0].Name, heard)
	}
	return "", nil
}

func (s *routes) remove(ctx context.Context) error {
	_, err := s.Kubectl(ctx, nil, "delete", "namespace", routesNamespace, "--wait=false")
	return err
}

func (s *routes) removed(ctx context.Context) (string, error) {
	_, err := s.Client.CoreV1().Namespaces().Get(ctx, routesNamespace, metav1.GetOptions{})
	return "", Gone("namespace "+routesNamespace, err)
}
