package clock

import (
	"testing"
	"time"
)

func TestWithinGoesByBothClocks(t *testing.T) {
	now := time.Now()
	wallOnly := now.Round(0)
	for name, c := range map[string]struct {
		moment time.Time
		want   bool
	}{
		"a moment ago":                  {now, true},
		"long ago":                      {now.Add(-time.Hour), false},
		"long ago by the wall clock":    {wallOnly.Add(-time.Hour), false},
		"in the future: clock set back": {wallOnly.Add(time.Hour), false},
		"never":                         {time.Time{}, false},
	} {
		if got := Within(c.moment, time.Minute); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
