package fairness

import (
	"context"
	"errors"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/cloud-provider/api"
)

// continuing ends the text of an error that is no failure.
const continuing = " (work continues)"

// continues is an api.RetryError of work that goes on.
type continues struct{ error }

func (c *continues) Unwrap() error { return c.error }

// Continues is the error of work that was interrupted to let others have their turn, and goes on after the pause. It is an
// api.RetryError, so that the service controller comes back then; and the Controller's client records no event that says it failed.
func Continues(message string, pause time.Duration) error {
	return &continues{api.NewRetryError(message+continuing, pause)}
}

// IsContinues says whether an error is one of Continues, and after which pause the work goes on.
func IsContinues(err error) (pause time.Duration, ok bool) {
	var goesOn *continues
	var retry *api.RetryError
	if !errors.As(err, &goesOn) || !errors.As(goesOn.error, &retry) {
		return 0, false
	}
	return retry.RetryAfter(), true
}

// withoutContinuing records no Warning whose cause is an error of Continues.
type withoutContinuing struct{ kubernetes.Interface }

func (c withoutContinuing) CoreV1() typedv1.CoreV1Interface {
	return coreWithoutContinuing{c.Interface.CoreV1()}
}

type coreWithoutContinuing struct{ typedv1.CoreV1Interface }

func (c coreWithoutContinuing) Events(namespace string) typedv1.EventInterface {
	return eventsWithoutContinuing{c.CoreV1Interface.Events(namespace)}
}

type eventsWithoutContinuing struct{ typedv1.EventInterface }

func goesOn(event *v1.Event) bool {
	return event.Type == v1.EventTypeWarning && strings.HasSuffix(event.Message, continuing)
}

// The recorder of events calls the methods without a context.

func (e eventsWithoutContinuing) CreateWithEventNamespace(event *v1.Event) (*v1.Event, error) {
	if goesOn(event) {
		return event, nil
	}
	return e.CreateWithEventNamespaceWithContext(context.Background(), event)
}

func (e eventsWithoutContinuing) UpdateWithEventNamespace(event *v1.Event) (*v1.Event, error) {
	if goesOn(event) {
		return event, nil
	}
	return e.UpdateWithEventNamespaceWithContext(context.Background(), event)
}

func (e eventsWithoutContinuing) PatchWithEventNamespace(event *v1.Event, data []byte) (*v1.Event, error) {
	if goesOn(event) {
		return event, nil
	}
	return e.PatchWithEventNamespaceWithContext(context.Background(), event, data)
}
