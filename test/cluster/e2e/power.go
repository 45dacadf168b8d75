package e2e

import (
	"context"
	"fmt"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// power is the loss of a node's power.
type power struct {
	suite
	node string
}

func (s suite) powerSteps() []steps.Step {
	p := &power{suite: s}
	return []steps.Step{
		{Name: "statefulset.yaml: a Pod runs with its volume", Do: p.startDatabase, Check: p.writeDatabase},
		{Name: "its node's server is powered off, and Kubernetes notices", Do: p.powerOff, Check: p.notReady},
		{Name: "with the out-of-service taint the Pod runs on the other node with its data",
			Do: p.taintOutOfService, Check: p.rescued},
		{Name: "the node's server is started again, and the Node is ready", Do: p.powerOn, Check: p.readyAgain},
	}
}

// startDatabase keeps it off the node of the CSI controller, so that its Pod does not have to move first.
func (p *power) startDatabase(ctx context.Context) error {
	controllers, err := p.Client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "app=upcloud-csi-controller"})
	if err != nil {
		return err
	}
	for _, pod := range controllers.Items {
		if err := p.cordon(ctx, pod.Spec.NodeName, true); err != nil {
			return err
		}
	}
	return p.apply("statefulset.yaml")(ctx)
}

func (p *power) writeDatabase(ctx context.Context) (string, error) {
	pod, err := p.ready(ctx, "db-0")
	if err != nil {
		return "", err
	}
	p.node = pod.Spec.NodeName
	if _, err := p.writeTo("db-0")(ctx); err != nil {
		return "", err
	}
	nodes, err := p.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, node := range nodes.Items {
		if err := p.cordon(ctx, node.Name, false); err != nil {
			return "", err
		}
	}
	return "on " + p.node, nil
}

func (p *power) powerOff(ctx context.Context) error {
	server, err := p.server(ctx, p.node)
	if err != nil {
		return err
	}
	_, err = p.Account.StopServer(ctx, &request.StopServerRequest{UUID: server, StopType: request.ServerStopTypeHard})
	return err
}

func (p *power) notReady(ctx context.Context) (string, error) {
	status, err := p.nodeReady(ctx)
	if err != nil {
		return "", err
	}
	if status == corev1.ConditionTrue {
		return "", fmt.Errorf("Node %s is still ready", p.node)
	}
	return fmt.Sprintf("Node %s: ready is %s", p.node, status), nil
}

func (p *power) nodeReady(ctx context.Context) (corev1.ConditionStatus, error) {
	node, err := p.Client.CoreV1().Nodes().Get(ctx, p.node, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status, nil
		}
	}
	return "", fmt.Errorf("Node %s does not tell whether it is ready", p.node)
}

func (p *power) taintOutOfService(ctx context.Context) error {
	_, err := p.Kubectl(ctx, nil, "taint", "node", p.node, "node.kubernetes.io/out-of-service=powered-off:NoExecute")
	return err
}

func (p *power) rescued(ctx context.Context) (string, error) {
	pod, err := p.ready(ctx, "db-0")
	if err != nil {
		return "", err
	}
	if pod.Spec.NodeName == p.node {
		return "", fmt.Errorf("Pod db-0 is still on %s", p.node)
	}
	if _, err := p.holds("db-0", 800)(ctx); err != nil {
		return "", err
	}
	return "on " + pod.Spec.NodeName, nil
}

func (p *power) powerOn(ctx context.Context) error {
	if _, err := p.Kubectl(ctx, nil, "taint", "node", p.node, "node.kubernetes.io/out-of-service-"); err != nil {
		return err
	}
	server, err := p.server(ctx, p.node)
	if err != nil {
		return err
	}
	_, err = p.Account.StartServer(ctx, &request.StartServerRequest{UUID: server})
	return err
}

func (p *power) readyAgain(ctx context.Context) (string, error) {
	status, err := p.nodeReady(ctx)
	if err != nil {
		return "", err
	}
	if status != corev1.ConditionTrue {
		return "", fmt.Errorf("Node %s: ready is %s", p.node, status)
	}
	return "Node " + p.node, nil
}
