package simulator

import (
	"fmt"
	"strings"
	"time"
)

// Profile says how long asynchronous transitions take. With every profile each state is passed through: what answers
// `maintenance` first in the real API answers `maintenance` first here, and a moment later the final state.
type Profile int

const (
	// Instant makes each transition take no time: the answer that started it shows the passing state, the next one
	// the final state.
	Instant Profile = iota
	// Fast makes transitions take a hundredth of what they take in the real cloud: states can be watched, tests stay short.
	Fast
	// Realistic makes transitions take what they took in recordings of the real API.
	Realistic
)

var profileNames = []string{"instant", "fast", "realistic"}

func (p Profile) String() string {
	if p < 0 || int(p) >= len(profileNames) {
		return fmt.Sprintf("Profile(%d)", int(p))
	}
	return profileNames[p]
}

// ParseProfile returns the profile of that name: instant, fast or realistic.
func ParseProfile(name string) (Profile, error) {
	for i, known := range profileNames {
		if name == known {
			return Profile(i), nil
		}
	}
	return 0, fmt.Errorf("unknown profile %q: choose one of %s", name, strings.Join(profileNames, ", "))
}

// durations of the transitions in the real cloud. Those of load balancers stand in the recordings (147 s from creation
// to running, 25-175 s to delete); the rest are of the order that the recordings' timestamps allow.
type durations struct {
	serverCreate, serverStart, serverStop, serverRestart time.Duration
	hotplug, coldplug                                    time.Duration
	copyBase, copyPerGiB                                 time.Duration
	loadBalancerChange                                   time.Duration
	importStart, importWork                              time.Duration
	fileStorageCreate, fileStorageChange                 time.Duration
	fileStorageDelete                                    time.Duration
}

var realistic = durations{
	serverCreate:       40 * time.Second,
	serverStart:        10 * time.Second,
	serverStop:         8 * time.Second,
	serverRestart:      15 * time.Second,
	hotplug:            3 * time.Second,
	coldplug:           500 * time.Millisecond,
	copyBase:           5 * time.Second,
	copyPerGiB:         500 * time.Millisecond,
	loadBalancerChange: 5 * time.Second,
	importStart:        time.Second,
	importWork:         9 * time.Second,
	fileStorageCreate:  40 * time.Second,
	fileStorageChange:  10 * time.Second,
	fileStorageDelete:  20 * time.Second,
}

func (p Profile) of(d time.Duration) time.Duration {
	switch p {
	case Realistic:
		return d
	case Fast:
		return d / 100
	default:
		return 0
	}
}
