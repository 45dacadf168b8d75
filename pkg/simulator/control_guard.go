package simulator

import (
	"net"
	"net/http"
	"net/netip"
)

// guardControl refuses what a web page makes a browser send to the control endpoints, which ask for no credentials: requests from
// another origin, and, against DNS rebinding, those to a host name other than localhost. Other clients than browsers send neither
// Origin nor Sec-Fetch-Site, and are not concerned.
func guardControl(next http.Handler) http.Handler {
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the control endpoints do not take requests from web pages of another origin; use curl, or another client that is not a browser",
			http.StatusForbidden)
	}
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(refuse))
	return protection.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromBrowser(r) && !isLocalName(r.Host) {
			refuse(w, r)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
}

// isLocalName says whether no DNS server chooses what the host leads to.
func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}
