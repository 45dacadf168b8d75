package kubenode_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

func attachment(volume, driver, node string, attached bool) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"name": fmt.Sprintf("csi-%x", sha256.Sum256([]byte(volume+driver+node)))},
		"spec":     map[string]any{"attacher": driver, "nodeName": node},
		"status":   map[string]any{"attached": attached},
	}
}

func TestAttachedTellsWhatCSIAttacherRecorded(t *testing.T) {
	const driver = "storage.csi.upcloud.com"
	pages := map[string]map[string]any{
		"": {"metadata": map[string]any{"continue": "more"}, "items": []any{
			attachment("refused", driver, "worker-1", false), attachment("others", "csi.example", "worker-1", true),
		}},
		"more": {"items": []any{
			attachment("attached", driver, "worker-2", true), attachment("0A-CAPITALS", driver, "worker-2", true),
		}},
	}
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/storage.k8s.io/v1/volumeattachments" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(pages[r.URL.Query().Get("continue")])
	}))
	t.Cleanup(server.Close)
	attachments, err := kubenode.NewAttachments(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for volume, want := range map[string]bool{"attached": true, "0a-capitals": true, "refused": false, "others": false, "unknown": false} {
		if got, err := attachments.Attached(t.Context(), driver, volume); err != nil || got != want {
			t.Errorf("%s: %t, %v, want %t", volume, got, err, want)
		}
	}
	status = http.StatusForbidden
	if _, err := attachments.Attached(t.Context(), driver, "attached"); err == nil {
		t.Error("a refusal was read as an answer")
	}
}
