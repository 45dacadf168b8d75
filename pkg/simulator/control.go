package simulator

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

const controlPrefix = "/_simulator"

// controlHandler serves what steers the simulator itself. It asks for no credentials: whoever reaches the simulator may
// steer it, but for web pages.
func (s *Simulator) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+controlPrefix+"/healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET "+controlPrefix+"/requests", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, s.Requests())
	})
	mux.HandleFunc("DELETE "+controlPrefix+"/requests", func(w http.ResponseWriter, _ *http.Request) {
		s.ResetRequests()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET "+controlPrefix+"/faults", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, s.faults.all())
	})
	mux.HandleFunc("POST "+controlPrefix+"/faults", s.postFault)
	mux.HandleFunc("DELETE "+controlPrefix+"/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.faults.clear()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE "+controlPrefix+"/faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil || !s.faults.remove(id) {
			http.Error(w, "no fault "+r.PathValue("id"), http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET "+controlPrefix+"/clock", func(w http.ResponseWriter, _ *http.Request) {
		writeControl(w, http.StatusOK, clockJSON{Now: s.clock.Now().UTC()})
	})
	mux.HandleFunc("POST "+controlPrefix+"/clock", s.postClock)
	s.dnsControl(mux)
	return guardControl(mux)
}

type clockJSON struct {
	Now     time.Time `json:"now,omitzero"`
	Advance string    `json:"advance,omitempty"`
}

// postClock moves a manual clock, and answers when everything has happened that came due.
func (s *Simulator) postClock(w http.ResponseWriter, r *http.Request) {
	clock, ok := s.clock.(*ManualClock)
	if !ok {
		http.Error(w, "the clock moves by itself: start the simulator with a manual clock to step it", http.StatusConflict)
		return
	}
	var move clockJSON
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodySize)).Decode(&move)
	d, badDuration := time.ParseDuration(move.Advance)
	if err != nil || badDuration != nil || d < 0 {
		http.Error(w, `say how far the clock is to move, such as {"advance":"147s"}`, http.StatusBadRequest)
		return
	}
	clock.Advance(d)
	writeControl(w, http.StatusOK, clockJSON{Now: clock.Now().UTC()})
}

func (s *Simulator) postFault(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodySize))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	fault, err := parseFault(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeControl(w, http.StatusCreated, fault.json(s.faults.add(fault)))
}

func writeControl(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v)
}
