package loadbalancer

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// records is what is remembered of each Service, by its UID. It is lost at a restart, and found again from the API.
type records struct {
	mu    sync.Mutex
	bySvc map[types.UID]serviceRecord
}

// serviceRecord is what is remembered of one Service. Each field is written by one file, whose type holds the records: said, membership,
// conditions.
type serviceRecord struct {
	remarks  []settings.Problem // that the Service was last given as events
	members  *broughtTo         // which its backends were last brought to have; nil: not known
	written  *written           // the condition that was written last; nil: none
	labelled string             // ID of the load balancer that has the Service's UID in its labels
	uploaded map[string]string  // fingerprints of the Secrets whose certificates the Service's bundles have, by name
}

func (r *records) get(uid types.UID) serviceRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bySvc[uid]
}

// change changes what is remembered of a Service.
func (r *records) change(uid types.UID, by func(*serviceRecord)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bySvc == nil {
		r.bySvc = map[types.UID]serviceRecord{}
	}
	one := r.bySvc[uid]
	by(&one)
	if one.isEmpty() {
		delete(r.bySvc, uid)
		return
	}
	r.bySvc[uid] = one
}

func (s serviceRecord) isEmpty() bool {
	return s.labelled == "" && s.members == nil && s.written == nil && len(s.uploaded)+len(s.remarks) == 0
}

// drop is called when a Service has gone. The condition stays known until it is taken off the Service.
func (r *records) drop(uid types.UID) {
	r.change(uid, func(one *serviceRecord) { *one = serviceRecord{written: one.written} })
}
