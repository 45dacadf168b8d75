package simulator

import (
	"net/http"
	"strings"
)

// pathTree finds the operation for a method and a path. A literal segment goes before a variable one, so that
// /load-balancer/certificate-bundles/x and /load-balancer/{uuid}/labels can stand side by side, which http.ServeMux
// refuses.
type pathTree struct {
	literal  map[string]*pathTree
	variable *pathTree
	name     string // of the variable that leads here
	handlers map[string]http.Handler
}

// add registers a handler for an operation such as "GET /storage/{uuid}".
func (t *pathTree) add(operation string, h http.Handler) {
	method, path, _ := strings.Cut(operation, " ")
	node := t
	for _, segment := range segments(path) {
		node = node.child(segment)
	}
	if node.handlers == nil {
		node.handlers = make(map[string]http.Handler)
	}
	if node.handlers[method] != nil {
		panic("simulator: operation registered twice: " + operation)
	}
	node.handlers[method] = h
}

func (t *pathTree) child(segment string) *pathTree {
	if strings.HasPrefix(segment, "{") {
		if t.variable == nil {
			t.variable = &pathTree{name: strings.Trim(segment, "{}")}
		}
		if t.variable.name != strings.Trim(segment, "{}") {
			panic("simulator: two names for one variable: " + t.variable.name + " and " + segment)
		}
		return t.variable
	}
	if t.literal == nil {
		t.literal = make(map[string]*pathTree)
	}
	if t.literal[segment] == nil {
		t.literal[segment] = &pathTree{}
	}
	return t.literal[segment]
}

// find returns the handler, with the path's variables set in the request; nil when there is none.
func (t *pathTree) find(r *http.Request, path []string) http.Handler {
	if len(path) == 0 {
		return t.handlers[r.Method]
	}
	if next := t.literal[path[0]]; next != nil {
		if h := next.find(r, path[1:]); h != nil {
			return h
		}
	}
	if t.variable == nil || path[0] == "" {
		return nil
	}
	h := t.variable.find(r, path[1:])
	if h != nil {
		r.SetPathValue(t.variable.name, path[0])
	}
	return h
}

func segments(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// dispatch serves the API. A slash at the end makes no difference: the SDK sends /network/ and /network.
func (s *Simulator) dispatch() http.Handler {
	var tree pathTree
	for _, r := range s.routes() {
		tree.add(r.operation, s.operation(r))
	}
	unknown := s.operation(route{operation: "unknown", serve: s.unknownOperation})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := tree.find(r, segments(r.URL.Path))
		if h == nil {
			h = unknown
		}
		h.ServeHTTP(w, r)
	})
}
