package sidecars

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/external-attacher/v4/pkg/attacher"
)

// external-attacher tells whether a volume is certainly not attached after an error.
func TestAttacherTakesErrorsForWhatTheyMean(t *testing.T) {
	for _, row := range meanings {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, conn := startRefusing(t, row.kind)
			_, detached, err := attacher.NewAttacher(conn).Attach(t.Context(), "volume", false, "node", &csi.VolumeCapability{}, nil, nil)
			if err == nil {
				t.Fatal("the driver refuses, and a volume was attached")
			}
			wantMeaning(t, "ControllerPublishVolume", row.kind, finality(detached), row.publish)
		})
	}
}
