package loadbalancer

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// clusterUIDRetry is how long a failure to read the cluster's UID is remembered: load balancers are made without it.
const clusterUIDRetry = 5 * time.Minute

// clusterUID reads the UID of the namespace kube-system once.
type clusterUID struct {
	mu    sync.Mutex
	uid   string
	tried time.Time
}

// get returns the UID; empty while it cannot be read.
func (c *clusterUID) get(ctx context.Context, client kubernetes.Interface, now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.uid != "" || client == nil || !c.tried.IsZero() && now.Sub(c.tried) < clusterUIDRetry {
		return c.uid
	}
	c.tried = now
	namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		klog.FromContext(ctx).Info("Cannot read namespace kube-system: load balancers do not get the label "+settings.LabelClusterUID, "err", err)
		return ""
	}
	c.uid = string(namespace.UID)
	return c.uid
}
