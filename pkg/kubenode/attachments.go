package kubenode

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
)

// Attachments reads VolumeAttachments.
type Attachments struct{ client *Client }

// NewAttachments makes a reader of the VolumeAttachments of the cluster.
func NewAttachments(config *rest.Config) (*Attachments, error) {
	client, err := newClient(config, "upcloud-csi-controller", "the ClusterRole upcloud-csi-controller")
	if err != nil {
		return nil, err
	}
	return &Attachments{client: client}, nil
}

// attachmentPage is how many VolumeAttachments are read with one request: the answer must not exceed maxAnswer.
const attachmentPage = "500"

// Attached reports whether csi-attacher has recorded that it attached a volume to any node of the cluster: status.attached of a
// VolumeAttachment, which only csi-attacher may write. One that is being deleted has it until the volume is detached.
// Errors: ErrForbidden.
func (a *Attachments) Attached(ctx context.Context, driver, volumeID string) (bool, error) {
	query := url.Values{"limit": {attachmentPage}}
	for {
		var answer struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []volumeAttachment `json:"items"`
		}
		path := "/apis/storage.k8s.io/v1/volumeattachments?" + query.Encode()
		if err := a.client.do(ctx, http.MethodGet, path, "", nil, &answer); err != nil {
			return false, err
		}
		for _, item := range answer.Items {
			if item.Status.Attached && item.is(driver, volumeID) {
				return true, nil
			}
		}
		if answer.Metadata.Continue == "" {
			return false, nil
		}
		query.Set("continue", answer.Metadata.Continue)
	}
}

type volumeAttachment struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Attacher string `json:"attacher"`
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Attached bool `json:"attached"`
	} `json:"status"`
}

// is reports whether the object is for that volume. Its name is made of the volume's ID, the driver and the node, so that the
// PersistentVolume, which may have been deleted, need not be read. Source: getAttachmentName of Kubernetes' pkg/volume/csi.
func (v *volumeAttachment) is(driver, volumeID string) bool {
	if v.Spec.Attacher != driver {
		return false
	}
	// A PersistentVolume that a person wrote may have the UUID in capitals.
	for _, handle := range []string{volumeID, strings.ToUpper(volumeID)} {
		sum := sha256.Sum256([]byte(handle + driver + v.Spec.NodeName))
		if v.Metadata.Name == fmt.Sprintf("csi-%x", sum) {
			return true
		}
	}
	return false
}
