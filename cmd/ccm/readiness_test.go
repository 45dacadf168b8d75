package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadiness(t *testing.T) {
	asked := 0
	var outcome error
	r := &readiness{check: func(context.Context) error { asked++; return outcome }}
	answer := func(want int) string {
		t.Helper()
		recorder := httptest.NewRecorder()
		r.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if recorder.Code != want {
			t.Errorf("status %d, want %d", recorder.Code, want)
		}
		return recorder.Body.String()
	}
	answer(http.StatusOK)
	answer(http.StatusOK)
	if asked != 1 {
		t.Errorf("the API was asked %d times for two probes", asked)
	}
	outcome = errors.New("the API refused the credentials")
	r.asked = r.asked.Add(-readyAge)
	if text := answer(http.StatusServiceUnavailable); !strings.Contains(text, "refused") {
		t.Errorf("the answer is %q", text)
	}
	outcome = nil
	r.asked = r.asked.Add(-unreadyAge)
	answer(http.StatusOK)
}
