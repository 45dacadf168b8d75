package suite

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

const proofNamespace = "e2e-lb-proofs"

// proofs show of each reason in the list that the CCM tells it to whoever asks for such a Service.
func (s *suite) proofs() []steps.Step {
	all := []steps.Step{{Name: "a namespace for what the platform cannot carry", Do: func(ctx context.Context) error {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: proofNamespace}}
		_, err := s.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		return err
	}}}
	for i, entry := range s.list {
		if entry.Event == "" {
			continue
		}
		name := fmt.Sprintf("proof-%d", i+1)
		all = append(all, steps.Step{Name: "the CCM tells of " + entry.Event,
			Do: s.makeService(name, entry.Service), Check: s.told(name, entry.Event)})
	}
	return append(all, steps.Step{Name: "the Services of this are deleted", Do: func(ctx context.Context) error {
		return s.Client.CoreV1().Namespaces().Delete(ctx, proofNamespace, metav1.DeleteOptions{})
	}, Check: func(ctx context.Context) (string, error) {
		_, err := s.Client.CoreV1().Namespaces().Get(ctx, proofNamespace, metav1.GetOptions{})
		return "", steps.Gone("namespace "+proofNamespace, err)
	}})
}

func (s *suite) makeService(name string, spec corev1.ServiceSpec) func(context.Context) error {
	return func(ctx context.Context) error {
		spec.Type = corev1.ServiceTypeLoadBalancer
		spec.Selector = map[string]string{"app": name}
		_, err := s.Client.CoreV1().Services(proofNamespace).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
		return err
	}
}

// told is the message of the event with which the CCM answers a Service.
func (s *suite) told(service, reason string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		events, err := s.Client.CoreV1().Events(proofNamespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + service})
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(events.Items, func(event corev1.Event) bool { return event.Reason == reason })
		if i < 0 {
			return "", fmt.Errorf("none of the %d events of the Service has the reason %s", len(events.Items), reason)
		}
		return events.Items[i].Message, nil
	}
}
