package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

func (s *suite) powerSteps() []steps.Step {
	return []steps.Step{
		{Name: "statefulset.yaml: a Pod runs with its volume", Limit: 2 * time.Minute, Do: s.startDatabase, Check: s.writeDatabase},
		{Name: "its node's server is powered off, and Kubernetes notices", Limit: 2 * time.Minute, Do: s.powerOff, Check: s.notReady},
		{Name: "with the out-of-service taint the Pod runs on the other node with its data", Limit: 4 * time.Minute,
			Do: s.taintOutOfService, Check: s.rescued},
		{Name: "the node's server is started again, and the Node is ready", Limit: 3 * time.Minute, Do: s.powerOn, Check: s.readyAgain},
	}
}

// startDatabase keeps it off the node of the CSI controller, so that its Pod does not have to move first.
func (s *suite) startDatabase(ctx context.Context) error {
	controllers, err := s.Client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "app=upcloud-csi-controller"})
	if err != nil {
		return err
	}
	for _, pod := range controllers.Items {
		if err := s.cordon(ctx, pod.Spec.NodeName, true); err != nil {
			return err
		}
	}
	return s.apply("statefulset.yaml")(ctx)
}

func (s *suite) cordon(ctx context.Context, node string, unschedulable bool) error {
	action := "uncordon"
	if unschedulable {
		action = "cordon"
	}
	_, err := s.Kubectl(ctx, nil, action, node)
	return err
}

func (s *suite) writeDatabase(ctx context.Context) (string, error) {
	pod, err := s.ready(ctx, "db-0")
	if err != nil {
		return "", err
	}
	s.node = pod.Spec.NodeName
	if _, err := s.writeTo("db-0")(ctx); err != nil {
		return "", err
	}
	nodes, err := s.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, node := range nodes.Items {
		if err := s.cordon(ctx, node.Name, false); err != nil {
			return "", err
		}
	}
	return "on " + s.node, nil
}

func (s *suite) server(ctx context.Context) (string, error) {
	node, err := s.Client.CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return strings.TrimLeft(strings.TrimPrefix(node.Spec.ProviderID, "upcloud:"), "/"), nil
}

func (s *suite) powerOff(ctx context.Context) error {
	server, err := s.server(ctx)
	if err != nil {
		return err
	}
	_, err = s.Account.StopServer(ctx, &request.StopServerRequest{UUID: server, StopType: request.ServerStopTypeHard})
	return err
}

func (s *suite) notReady(ctx context.Context) (string, error) {
	status, err := s.nodeReady(ctx)
	if err != nil {
		return "", err
	}
	if status == corev1.ConditionTrue {
		return "", fmt.Errorf("Node %s is still ready", s.node)
	}
	return fmt.Sprintf("Node %s: ready is %s", s.node, status), nil
}

func (s *suite) nodeReady(ctx context.Context) (corev1.ConditionStatus, error) {
	node, err := s.Client.CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status, nil
		}
	}
	return "", fmt.Errorf("Node %s does not tell whether it is ready", s.node)
}

func (s *suite) taintOutOfService(ctx context.Context) error {
	_, err := s.Kubectl(ctx, nil, "taint", "node", s.node, "node.kubernetes.io/out-of-service=powered-off:NoExecute")
	return err
}

func (s *suite) rescued(ctx context.Context) (string, error) {
	pod, err := s.ready(ctx, "db-0")
	if err != nil {
		return "", err
	}
	if pod.Spec.NodeName == s.node {
		return "", fmt.Errorf("Pod db-0 is still on %s", s.node)
	}
	if _, err := s.holds("db-0", 800)(ctx); err != nil {
		return "", err
	}
	return "on " + pod.Spec.NodeName, nil
}

func (s *suite) powerOn(ctx context.Context) error {
	if _, err := s.Kubectl(ctx, nil, "taint", "node", s.node, "node.kubernetes.io/out-of-service-"); err != nil {
		return err
	}
	server, err := s.server(ctx)
	if err != nil {
		return err
	}
	_, err = s.Account.StartServer(ctx, &request.StartServerRequest{UUID: server})
	return err
}

func (s *suite) readyAgain(ctx context.Context) (string, error) {
	status, err := s.nodeReady(ctx)
	if err != nil {
		return "", err
	}
	if status != corev1.ConditionTrue {
		return "", fmt.Errorf("Node %s: ready is %s", s.node, status)
	}
	return "Node " + s.node, nil
}
