package kubenode

import (
	"context"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
)

// Lease is a Lease of coordination.k8s.io: who leads, and until when. What the object does not tell is zero.
type Lease struct {
	Holder   string
	Renewed  time.Time
	Duration time.Duration
}

// Leases reads Leases.
type Leases struct{ client *Client }

// NewLeases makes a reader of the Leases that the controller of the CSI driver needs.
func NewLeases(config *rest.Config) (*Leases, error) {
	client, err := newClient(config, "upcloud-csi-controller", "the Role upcloud-csi-controller")
	if err != nil {
		return nil, err
	}
	return &Leases{client: client}, nil
}

// Lease reads one. Errors: ErrNotFound, ErrForbidden.
func (l *Leases) Lease(ctx context.Context, namespace, name string) (*Lease, error) {
	var answer struct {
		Spec struct {
			HolderIdentity       string    `json:"holderIdentity"`
			RenewTime            time.Time `json:"renewTime"`
			LeaseDurationSeconds int       `json:"leaseDurationSeconds"`
		} `json:"spec"`
	}
	path := "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases/" + name
	if err := l.client.do(ctx, http.MethodGet, path, "", nil, &answer); err != nil {
		return nil, err
	}
	return &Lease{
		Holder: answer.Spec.HolderIdentity, Renewed: answer.Spec.RenewTime,
		Duration: time.Duration(answer.Spec.LeaseDurationSeconds) * time.Second,
	}, nil
}
