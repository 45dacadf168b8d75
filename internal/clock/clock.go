// Package clock judges how long ago something was, for programs that may be stopped in between.
package clock

import "time"

// Within reports whether moment, which time.Now returned, is less than age ago. It goes by both clocks: the monotonic one
// stands still while the machine sleeps, and the other one can be set.
func Within(moment time.Time, age time.Duration) bool {
	monotonic, wall := time.Since(moment), time.Now().Round(0).Sub(moment.Round(0))
	return monotonic < age && wall < age && wall >= 0
}
