package simulator

import (
	"encoding/json"
	"slices"
)

// doom makes what a request started end in an error: the resource that the answer shows, else the one that the path
// names. The lock is held.
func (s *Simulator) doom(c *call, result any) {
	uuid := uuidIn(result)
	if uuid == "" {
		uuid = c.path("uuid")
	}
	if st, ok := s.storages.get(uuid); ok && st.kind == kindBackup && result == nil {
		uuid = st.origin // a restore
	}
	if uuid != "" && !slices.Contains(s.doomed, uuid) {
		s.doomed = append(s.doomed, uuid)
	}
}

// uuidIn finds the UUID in an answer, wrapped or not.
func uuidIn(result any) string {
	text, err := json.Marshal(result)
	if err != nil {
		return ""
	}
	var bare struct{ UUID string }
	if json.Unmarshal(text, &bare) == nil && bare.UUID != "" {
		return bare.UUID
	}
	var wrapped map[string]json.RawMessage
	if json.Unmarshal(text, &wrapped) != nil {
		return ""
	}
	for _, inner := range wrapped {
		if json.Unmarshal(inner, &bare) == nil && bare.UUID != "" {
			return bare.UUID
		}
	}
	return ""
}

// failDoomed puts those doomed resources into the state error whose operation has ended. The lock is held.
func (s *Simulator) failDoomed() {
	if len(s.doomed) > 0 {
		s.doomed = slices.DeleteFunc(s.doomed, s.failed)
	}
}

// failed says false for a resource whose operation goes on.
func (s *Simulator) failed(uuid string) bool {
	if st, ok := s.storages.get(uuid); ok {
		if st.state != storageOnline {
			return false
		}
		st.state = storageError
		return true
	}
	if v, ok := s.servers.get(uuid); ok {
		if v.busy || v.state != serverStarted && v.state != serverStopped {
			return false
		}
		v.state = serverError
		return true
	}
	if lb, ok := s.loadBalancers.get(uuid); ok {
		if lb.deleting || lb.OperationalState != lbRunning {
			return lb.deleting
		}
		lb.fail(s)
	}
	return true
}
