package cloud

import (
	"context"
	"net/http"
	"time"
)

// AccountTime asks the API what time it is: the Date header of an answer, in whole seconds. Ages and waits that decide about
// somebody's data are counted by it, and not by this machine's clock, which may be wrong. ErrUnavailable where the answer has no date.
func (c *Cloud) AccountTime(ctx context.Context) (time.Time, error) {
	doing := Error{Op: "read", Resource: "the API's clock"}
	var date string
	err := c.call(context.WithValue(ctx, dateKey{}, &date), http.MethodGet, "/account", nil, nil)
	if err != nil {
		return time.Time{}, explain(err, doing)
	}
	now, err := http.ParseTime(date)
	if err != nil {
		return time.Time{}, explain(&Error{Kind: ErrUnavailable, Message: "the answer has no date",
			Remedy: "look at what stands between here and the API"}, doing)
	}
	return now, nil
}

// dateKey is the context key of a *string that gets the date of the last answer.
type dateKey struct{}

func noteDate(ctx context.Context, date string) {
	if into, asked := ctx.Value(dateKey{}).(*string); asked {
		*into = date
	}
}
