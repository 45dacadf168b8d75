//go:build !race

// The race detector makes the enumeration ten times slower, to minutes. hack/test runs it without.

package driver_test

import (
	"os"
	"testing"
)

// Two copies of the controller, in every order of their requests, each time with one that is throttled, refused or lost its answer.
// For the largest scenarios that takes minutes, so that they have no such faults unless SCHEDULES=all.
func TestTwoCopiesInEveryOrder(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			faults := 1
			if s.large && os.Getenv("SCHEDULES") != "all" {
				faults = 0
			}
			schedules, points := explore(t, s, faults)
			t.Logf("%d schedules, %d points", schedules, points)
			if schedules < 8 && !t.Failed() {
				t.Errorf("only %d schedules: the copies do not race", schedules)
			}
		})
	}
}
