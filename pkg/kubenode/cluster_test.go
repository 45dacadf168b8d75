package kubenode_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

func TestClusterUID(t *testing.T) {
	answer, status := `{"metadata":{"name":"kube-system","uid":"uid-1"}}`, http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/kube-system" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	if uid, err := kubenode.ClusterUID(t.Context(), config); err != nil || uid != "uid-1" {
		t.Errorf("%q, %v", uid, err)
	}
	answer = `{"metadata":{"name":"kube-system"}}`
	if uid, err := kubenode.ClusterUID(t.Context(), config); err == nil {
		t.Errorf("without a UID: %q", uid)
	}
	answer, status = `{"message":"not allowed"}`, http.StatusForbidden
	if _, err := kubenode.ClusterUID(t.Context(), config); err == nil || !strings.Contains(err.Error(), "deploy/kubernetes/base/csi-driver") {
		t.Errorf("not allowed: %v", err)
	}
}
