package cloud

import (
	"context"
	"errors"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/clock"
)

// Some requests do not name what they change by its ID, but by a place: an address on a server's bus, a name that others
// may take, a list that is replaced as a whole. Such a request changes whatever is at that place when it arrives. So its
// sender looks first, and every time that it is sent again. withLook marks such a request: the transport sends it once,
// and only while the look is recent.
//
// Marked are: a detachment, which names an address on a bus; the labels of a storage and the static routes of a router, lists
// replaced as a whole; the router of a network, which replaces another; an interface of a server, named by its index; and on load
// balancers that others use too, what takes a component away or replaces it, as its name may be another's by then. Components of
// load balancers that are this program's own have names that nothing else gives; everything else is named by its ID.

// lookAge is for how long a look serves. It covers a slow answer, and ends before another controller can have taken over
// and changed what was seen.
const lookAge = 5 * time.Second

var errOldLook = errors.New("the request was held back for so long that what it changes may be another by now")

type lookKey struct{}

// look returns the context for a look, and where the moment is noted at which its last request was sent: what the answer shows
// is not older. Before that the request may have waited for long, see throttle.
func look(ctx context.Context) (looking context.Context, began *time.Time) {
	began = new(time.Time)
	return context.WithValue(ctx, lookBeganKey{}, began), began
}

// lookBeganKey is the context key of the *time.Time of look.
type lookBeganKey struct{}

func noteSending(ctx context.Context, moment time.Time) {
	if began, asked := ctx.Value(lookBeganKey{}).(*time.Time); asked {
		*began = moment
	}
}

// withLook marks the context of a request that names a place, which the caller began to look at at that moment (see look). An error for
// which lookAgain is true says that the request had no effect, and that it may succeed after another look.
func withLook(ctx context.Context, began time.Time) context.Context {
	return context.WithValue(ctx, lookKey{}, began)
}

// namesPlace reports whether a request is marked by withLook.
func namesPlace(ctx context.Context) bool { return ctx.Value(lookKey{}) != nil }

// lookIsOld reports whether the look before a request that names a place was too long ago.
func lookIsOld(ctx context.Context) bool {
	began, marked := ctx.Value(lookKey{}).(time.Time)
	return marked && !clock.Within(began, lookAge)
}

// lookAgain reports whether a failed request certainly had no effect, for a reason that may have passed: the caller may look
// and send it again.
func lookAgain(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.ineffective
}
