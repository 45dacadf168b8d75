package simulator

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is the record of one request to the API.
type Request struct {
	Time      time.Time     // when it came, by the machine's clock
	Operation string        // "POST /storage/{uuid}/clone"
	Method    string        // "POST"
	URI       string        // path and query as sent
	Status    int           // 0: the connection was dropped
	Code      string        // of the error: STORAGE_NOT_FOUND; empty: none
	BytesIn   int64         // of the request's body
	BytesOut  int64         // of the answer's body
	Duration  time.Duration // until the answer stood, by the machine's clock
	Remote    string        // the client's address and port
	UserAgent string
}

// Count sums up the requests of one operation.
type Count struct {
	Requests int   `json:"requests"`
	Failed   int   `json:"failed"` // status 400 and above, and dropped connections
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

// Counts are the requests served, by operation: the method and the path below /1.3 with {uuid} and the like for what
// differs, as in "POST /storage/{uuid}/clone".
type Counts map[string]Count

// Of returns how many requests of the operation there were.
func (c Counts) Of(operation string) int { return c[operation].Requests }

// Total returns how many requests there were.
func (c Counts) Total() int {
	total := 0
	for _, n := range c {
		total += n.Requests
	}
	return total
}

// Operations returns the operations in order.
func (c Counts) Operations() []string { return slices.Sorted(maps.Keys(c)) }

type recorder struct {
	mu     sync.Mutex
	counts Counts
}

func (r *recorder) add(q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.counts[q.Operation]
	n.Requests++
	if q.Status == 0 || q.Status >= http.StatusBadRequest {
		n.Failed++
	}
	n.BytesIn += q.BytesIn
	n.BytesOut += q.BytesOut
	r.counts[q.Operation] = n
}

// Requests returns what the API has served since the start or the last ResetRequests.
func (s *Simulator) Requests() Counts {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	return maps.Clone(s.recorder.counts)
}

// ResetRequests makes the counts start anew.
func (s *Simulator) ResetRequests() {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.recorder.counts = Counts{}
}

func (s *Simulator) record(rt route, r *http.Request, bytesIn int, a answer, dropped bool, started time.Time) {
	q := Request{
		Time:      started,
		Operation: rt.operation,
		Method:    r.Method,
		URI:       requestURI(r),
		Status:    a.status,
		Code:      a.code(),
		BytesIn:   int64(bytesIn),
		BytesOut:  int64(len(a.body)),
		Duration:  time.Since(started),
		Remote:    r.RemoteAddr,
		UserAgent: r.UserAgent(),
	}
	if dropped {
		q.Status, q.BytesOut = 0, 0
	}
	s.recorder.add(q)
	if s.cfg.RequestLog != nil {
		s.cfg.RequestLog(q)
	}
}

// code is the error code in an answer that refuses.
func (a *answer) code() string {
	if a.status < http.StatusBadRequest {
		return ""
	}
	var body struct {
		Error struct {
			Code string `json:"error_code"`
		} `json:"error"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		return ""
	}
	return or(body.Error.Code, strings.TrimPrefix(body.Type, errorPage))
}

// requestURI is the URI as the client sent it, below /1.3.
func requestURI(r *http.Request) string {
	if uri, ok := strings.CutPrefix(r.RequestURI, apiPrefix); ok {
		return uri
	}
	return r.URL.RequestURI()
}
