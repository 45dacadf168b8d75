package simulator

import (
	"encoding/json"
	"net/netip"
	"slices"
)

// connectFileStorage gives the file storage its address on its network, when that changes.
func (s *Simulator) connectFileStorage(f *fileStorage, next *FileStorage) error {
	if len(next.Networks) > 0 && len(f.Networks) > 0 && sameConnection(&next.Networks[0], &f.Networks[0]) {
		return nil
	}
	var network *network
	var address netip.Addr
	if len(next.Networks) > 0 {
		n := &next.Networks[0]
		if n.Name == "" {
			return invalid(invalidParam{"networks.0.name", "Required field."})
		}
		var err error
		if network, err = s.network(n.UUID); err != nil || network.kind != networkPrivate || network.zone != next.Zone {
			return invalid(invalidParam{"networks.0.uuid", "Must be a private network in the zone " + next.Zone + "."})
		}
		var asked netip.Addr
		if n.IPAddress != "" {
			if asked, err = netip.ParseAddr(n.IPAddress); err != nil {
				return invalid(invalidParam{"networks.0.ip_address", "Must be an IP address."})
			}
		}
		n.Family = or(n.Family, familyIPv4)
		if address, err = network.allocate(n.Family, asked); err != nil {
			return invalid(invalidParam{"networks.0.ip_address", err.Error()})
		}
		n.IPAddress = address.String()
	}
	s.releaseFileStorage(f)
	f.address = address
	return nil
}

// sameConnection says whether what is asked for is what there is; an address not given is any.
func sameConnection(asked, now *FileStorageNetwork) bool {
	if asked.UUID != now.UUID || asked.Family != "" && asked.Family != now.Family ||
		asked.IPAddress != "" && asked.IPAddress != now.IPAddress {
		return false
	}
	asked.Family, asked.IPAddress = now.Family, now.IPAddress
	return true
}

func (s *Simulator) releaseFileStorage(f *fileStorage) {
	if !f.address.IsValid() || len(f.Networks) == 0 {
		return
	}
	if n, ok := s.networks.get(f.Networks[0].UUID); ok {
		n.release(f.address)
	}
	f.address = netip.Addr{}
}

// fsPart is one kind of thing that a file storage is made of: a list in it, whose items have names.
type fsPart[T any] struct {
	what   string // for "… not found."
	key    string // of the item in the path
	name   func(*T) string
	list   func(*FileStorage, *call) (*[]T, error)
	remove func(*[]T, int) // nil: the item goes at once
}

func (p fsPart[T]) find(list []T, name string) int {
	return slices.IndexFunc(list, func(v T) bool { return p.name(&v) == name })
}

func (s *Simulator) fileStorageRoutes() []route {
	const service = "/file-storage/{uuid}"
	out := []route{
		{operation: "GET /file-storage", status: 200, serve: s.listFileStorages},
		{operation: "POST /file-storage", status: 201, serve: s.createFileStorage},
		{operation: "GET " + service, status: 200, serve: s.getFileStorage},
		{operation: "PUT " + service, status: 200, serve: s.replaceFileStorage},
		{operation: "PATCH " + service, status: 200, serve: s.modifyFileStorage},
		{operation: "DELETE " + service, status: 204, serve: s.deleteFileStorage},
		{operation: "GET " + service + "/current-state", status: 200, serve: s.getFileStorageState},
	}
	out = append(out, fsRoutes(s, service+"/networks", fsPart[FileStorageNetwork]{
		what: "Network", key: "network", name: func(n *FileStorageNetwork) string { return n.Name },
		list: func(f *FileStorage, _ *call) (*[]FileStorageNetwork, error) { return &f.Networks, nil },
	})...)
	out = append(out, fsRoutes(s, service+"/shares", fsPart[FileStorageShare]{
		what: "Share", key: "share", name: func(v *FileStorageShare) string { return v.Name },
		list: func(f *FileStorage, _ *call) (*[]FileStorageShare, error) { return &f.Shares, nil },
		// a share goes when the change has been applied; until then it shows that it will
		remove: func(list *[]FileStorageShare, i int) { (*list)[i].Deleting, (*list)[i].ACL = true, []FileStorageACL{} },
	})...)
	out = append(out, fsRoutes(s, service+"/shares/{share}/acl", fsPart[FileStorageACL]{
		what: "ACL", key: "acl", name: func(a *FileStorageACL) string { return a.Name },
		list: func(f *FileStorage, c *call) (*[]FileStorageACL, error) {
			for i := range f.Shares {
				if f.Shares[i].Name == c.path("share") {
					return &f.Shares[i].ACL, nil
				}
			}
			return nil, problemNotFound("Share")
		},
	})...)
	return append(out, fsRoutes(s, service+"/labels", fsPart[Label]{
		what: "Label", key: "key", name: func(l *Label) string { return l.Key },
		list: func(f *FileStorage, _ *call) (*[]Label, error) { return &f.Labels, nil },
	})...)
}

// fsRoutes serves a list of parts and its items.
func fsRoutes[T any](s *Simulator, path string, p fsPart[T]) []route {
	item := path + "/{" + p.key + "}"
	return []route{
		{operation: "GET " + path, status: 200, serve: func(c *call) (any, error) {
			f, err := s.fileStorage(c)
			if err != nil {
				return nil, err
			}
			list, err := p.list(&f.FileStorage, c)
			if err != nil {
				return nil, err
			}
			return append([]T{}, *list...), nil
		}},
		{operation: "GET " + item, status: 200, serve: func(c *call) (any, error) {
			f, err := s.fileStorage(c)
			if err != nil {
				return nil, err
			}
			list, err := p.list(&f.FileStorage, c)
			if err != nil {
				return nil, err
			}
			i := p.find(*list, c.path(p.key))
			if i < 0 {
				return nil, problemNotFound(p.what)
			}
			return (*list)[i], nil
		}},
		{operation: "POST " + path, status: 201, serve: func(c *call) (any, error) {
			var v T
			if err := c.decodeNew(&v); err != nil {
				return nil, err
			}
			return changePart(s, c, p, p.name(&v), func(list *[]T) error {
				if p.find(*list, p.name(&v)) >= 0 {
					return problemConflict(p.what + " with the name '" + p.name(&v) + "' already exists.")
				}
				*list = append(*list, v)
				return nil
			})
		}},
		{operation: "PATCH " + item, status: 200, serve: func(c *call) (any, error) {
			name := c.path(p.key)
			return changePart(s, c, p, name, func(list *[]T) error { return p.modify(list, &name, c.body) })
		}},
		{operation: "DELETE " + item, status: 204, serve: func(c *call) (any, error) {
			_, err := changePart(s, c, p, "", func(list *[]T) error {
				i := p.find(*list, c.path(p.key))
				if i < 0 {
					return problemNotFound(p.what)
				}
				if p.remove != nil {
					p.remove(list, i)
					return nil
				}
				*list = slices.Delete(*list, i, i+1)
				return nil
			})
			return nil, err
		}},
	}
}

// modify changes an item as the body says; lists in it are replaced as a whole.
func (p fsPart[T]) modify(list *[]T, name *string, body []byte) error {
	i := p.find(*list, *name)
	if i < 0 {
		return problemNotFound(p.what)
	}
	if err := json.Unmarshal(body, &(*list)[i]); err != nil {
		return invalid(invalidParam{"", "Request body is not valid: " + err.Error()})
	}
	*name = p.name(&(*list)[i])
	if other := p.find(*list, *name); other != i {
		return problemConflict(p.what + " with the name '" + *name + "' already exists.")
	}
	return nil
}

// changePart changes a list of parts; the answer is the item of that name, if one is wanted.
func changePart[T any](s *Simulator, c *call, p fsPart[T], answer string, change func(*[]T) error) (any, error) {
	f, err := s.mutableFileStorage(c)
	if err != nil {
		return nil, err
	}
	next := f.clone()
	list, err := p.list(&next, c)
	if err != nil {
		return nil, err
	}
	if err := change(list); err != nil {
		return nil, err
	}
	if err := s.changeFileStorage(f, next); err != nil {
		return nil, err
	}
	s.applyFileStorage(f, realistic.fileStorageChange)
	if list, err = p.list(&f.FileStorage, c); err != nil {
		return nil, err
	}
	if i := p.find(*list, answer); i >= 0 {
		return (*list)[i], nil
	}
	return nil, nil
}
