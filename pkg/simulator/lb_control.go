package simulator

import (
	"encoding/json"
	"maps"
	"net/http"
)

type dnsJSON struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// dnsControl serves the names that SetDNS knows, and the certificate of the simulator's authority.
func (s *Simulator) dnsControl(mux *http.ServeMux) {
	mux.HandleFunc("GET "+controlPrefix+"/dns", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		names := maps.Clone(s.dns)
		s.mu.Unlock()
		if names == nil {
			names = map[string]string{}
		}
		writeControl(w, http.StatusOK, names)
	})
	mux.HandleFunc("POST "+controlPrefix+"/dns", func(w http.ResponseWriter, r *http.Request) {
		var entry dnsJSON
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodySize)).Decode(&entry)
		if err != nil || entry.Name == "" || entry.Target == "" {
			http.Error(w, `say where a name leads, such as {"name":"www.example.com","target":"lb-….upcloudlb.com"}`,
				http.StatusBadRequest)
			return
		}
		s.SetDNS(entry.Name, entry.Target)
		writeControl(w, http.StatusCreated, entry)
	})
	mux.HandleFunc("DELETE "+controlPrefix+"/dns/{name}", func(w http.ResponseWriter, r *http.Request) {
		s.SetDNS(r.PathValue("name"), "")
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET "+controlPrefix+"/ca.pem", func(w http.ResponseWriter, _ *http.Request) {
		ca := s.CertificateAuthority()
		if ca == nil {
			http.Error(w, "no certificate has been issued yet", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(ca)
	})
}
