package kubenode

import (
	"context"
	"fmt"
	"net/http"

	"k8s.io/client-go/rest"
)

// ClusterUID reads the UID of the namespace kube-system, which identifies a cluster: no two API servers give the same, but those
// that run on copies of one etcd.
func ClusterUID(ctx context.Context, config *rest.Config) (string, error) {
	client, err := newClient(config, "upcloud-csi-controller", "the ClusterRole upcloud-csi-controller")
	if err != nil {
		return "", err
	}
	var namespace struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	if err := client.do(ctx, http.MethodGet, "/api/v1/namespaces/kube-system", "", nil, &namespace); err != nil {
		return "", err
	}
	if namespace.Metadata.UID == "" {
		return "", fmt.Errorf("the API server answers without the UID of namespace kube-system")
	}
	return namespace.Metadata.UID, nil
}
