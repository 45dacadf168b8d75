package loadbalancer

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// FuzzWaiting: whatever the API answers for a load balancer that does not serve yet, it is looked at again, and within a minute.
func FuzzWaiting(f *testing.F) {
	for _, seed := range []string{`{}`, `{"operational_state":"failing"}`, `{"configured_status":"stopped"}`, `{"created_at":"2026-01-01T00:00:00Z"}`,
		`{"created_at":"2226-01-01T00:00:00Z"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		lb := &cloud.LoadBalancer{}
		if json.Unmarshal([]byte(answer), lb) != nil {
			return // the call fails
		}
		if reason, text := waitingFor(lb); reason == "" || text == "" {
			t.Errorf("reason %q, text %q", reason, text)
		}
		if pause := retryWhile(lb); pause < 0 || pause > time.Minute {
			t.Errorf("looks again after %s", pause)
		}
	})
}
