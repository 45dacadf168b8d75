package instances

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

var costOfNode = boundedtest.Cost{Bytes: 1 << 20, BytesPerByte: 500, CPU: 2 * time.Second, CPUPerByte: 50 * time.Microsecond}

// A kubelet may write any annotation on its own Node.
func TestProvidedNodeIPsBeyondTheLimitAreRefused(t *testing.T) {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{}}}
	for text, refused := range map[string]bool{
		"10.0.0.1" + strings.Repeat(" ", maxProvidedIPs-8): false,
		"10.0.0.1" + strings.Repeat(" ", maxProvidedIPs-7): true,
	} {
		node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr] = text
		if _, err := providedNodeIPs(node); (err != nil) != refused || refused && !strings.Contains(err.Error(), "too large: 1025 bytes, at most 1024") {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
}

// FuzzNode reads what a kubelet may write on its Node: each text is read or refused, at a cost in proportion to its size.
func FuzzNode(f *testing.F) {
	for _, text := range []string{"10.0.0.1", "10.0.0.1,", "fd00::1%eth0", "upcloud:////", "upcloud:////01a5568f-4766-4ce7-abf5-7d257892a5c5", "10.0.0.0/8", "\x00"} {
		f.Add(text, uint16(1))
		f.Add(text, uint16(3000))
	}
	f.Fuzz(func(t *testing.T, part string, times uint16) {
		if len(part)*int(times) > 256<<10 {
			return
		}
		text := strings.Repeat(part, int(times))
		node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: part, Annotations: map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: text}}}
		costOfNode.Within(t, len(text), func() {
			if _, err := providedNodeIPs(node); err != nil && len(err.Error()) > 4*maxProvidedIPs+200 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			_, _ = providerid.Parse(text)
			_ = ValidatePrivateNetworks([]string{text})
		})
	})
}
