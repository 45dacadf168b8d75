//go:build !linux

package boundedtest

import "time"

// threadTime is not known here: only allocations are limited.
func threadTime() time.Duration { return 0 }
