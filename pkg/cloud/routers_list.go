package cloud

import (
	"context"
	"maps"
	"net/http"
	"slices"
)

// ListedRouter is a router as the list of the account's has it.
type ListedRouter struct {
	ID, Name string
	Labels   Labels
	Routes   []StaticRoute // those of users
	Networks int           // how many networks are attached to it
}

// ListRouters lists the account's routers: one call.
func (c *Cloud) ListRouters(ctx context.Context) ([]ListedRouter, error) {
	var answer struct {
		Routers *struct {
			Router []struct {
				Router
				Labels   Labels `json:"labels"`
				Networks struct {
					Network []struct{} `json:"network"`
				} `json:"attached_networks"`
			} `json:"router"`
		} `json:"routers"`
	}
	err := c.call(ctx, http.MethodGet, "/router", nil, &answer)
	if err == nil && answer.Routers == nil {
		err = notAbout("routers") // which is not to say that there are none
	}
	if err != nil {
		return nil, explain(notMissing(err), Error{Op: "list", Resource: "routers"})
	}
	listed := make([]ListedRouter, 0, len(answer.Routers.Router))
	for _, router := range answer.Routers.Router {
		listed = append(listed, ListedRouter{
			ID: router.ID, Name: router.Name, Labels: router.Labels, Networks: len(router.Networks.Network),
			Routes: slices.DeleteFunc(router.Routes, StaticRoute.ofService),
		})
	}
	return listed, nil
}

// IDs are the servers' UUIDs, in order.
func (s *ServerSet) IDs() []string { return slices.Sorted(maps.Keys(s.byID)) }
