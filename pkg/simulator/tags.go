package simulator

import (
	"regexp"
	"slices"
	"strings"
)

// tag is a word that users put on servers. Which servers have it stands at the servers.
type tag struct {
	name, description string
}

type tagEntry struct {
	Description string      `json:"description"`
	Name        string      `json:"name"`
	Servers     serverUUIDs `json:"servers"`
}

type tagAnswer struct {
	Tag tagEntry `json:"tag"`
}

type tagListAnswer struct {
	Tags struct {
		Tag []tagEntry `json:"tag"`
	} `json:"tags"`
}

type tagBody struct {
	Tag struct {
		Name        string       `json:"name"`
		Description *string      `json:"description"`
		Servers     *serverUUIDs `json:"servers"`
	} `json:"tag"`
}

// tagPattern is the documented form of names.
var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_]{1,32}$`)

// tagKey orders tags, and tells them apart, regardless of case: the recorded lists are in that order.
func tagKey(name string) string { return strings.ToLower(name) }

func (s *Simulator) tagEntry(t *tag) tagEntry {
	e := tagEntry{Description: t.description, Name: t.name, Servers: serverUUIDs{[]string{}}}
	for v := range s.servers.all() {
		if slices.Contains(v.tags, t.name) {
			e.Servers.Server = append(e.Servers.Server, v.uuid)
		}
	}
	return e
}

func (s *Simulator) tag(name string) (*tag, error) {
	t, ok := s.tags.get(tagKey(name))
	if !ok {
		return nil, notFound("TAG_NOT_FOUND", "The tag %s does not exist.", name)
	}
	return t, nil
}

func (s *Simulator) listTags(*call) (any, error) {
	var out tagListAnswer
	out.Tags.Tag = make([]tagEntry, 0, s.tags.len())
	for t := range s.tags.all() {
		out.Tags.Tag = append(out.Tags.Tag, s.tagEntry(t))
	}
	return out, nil
}

// checkTag refuses names that are not valid or taken by another tag, and servers that do not exist.
func (s *Simulator) checkTag(r *tagBody, self *tag) error {
	if !tagPattern.MatchString(r.Tag.Name) {
		return badRequest("TAG_INVALID",
			"The tag name '%s' is not valid: it must have 1 to 32 letters, digits and underscores.", r.Tag.Name)
	}
	if other, taken := s.tags.get(tagKey(r.Tag.Name)); taken && other != self {
		return conflict("TAG_EXISTS", "The tag %s already exists.", r.Tag.Name)
	}
	if d := r.Tag.Description; d != nil && len(*d) > maxTitle {
		return badRequest("DESCRIPTION_INVALID", "The attribute 'description' has more than %d characters.", maxTitle)
	}
	if r.Tag.Servers != nil {
		for _, uuid := range r.Tag.Servers.Server {
			if _, err := s.server(uuid); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Simulator) createTag(c *call) (any, error) {
	var req tagBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := s.checkTag(&req, nil); err != nil {
		return nil, err
	}
	t := &tag{name: req.Tag.Name}
	s.changeTag(t, &req)
	s.tags.put(tagKey(t.name), t)
	return tagAnswer{s.tagEntry(t)}, nil
}

// changeTag applies a request that checkTag let pass; servers are replaced as a whole.
func (s *Simulator) changeTag(t *tag, r *tagBody) {
	if r.Tag.Description != nil {
		t.description = *r.Tag.Description
	}
	if r.Tag.Servers == nil {
		return
	}
	for v := range s.servers.all() {
		v.untag(t.name)
		if slices.Contains(r.Tag.Servers.Server, v.uuid) {
			v.tags = append(v.tags, t.name)
		}
	}
}

func (s *Simulator) modifyTag(c *call) (any, error) {
	t, err := s.tag(c.path("tag"))
	if err != nil {
		return nil, err
	}
	var req tagBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	req.Tag.Name = or(req.Tag.Name, t.name)
	if err := s.checkTag(&req, t); err != nil {
		return nil, err
	}
	if former := t.name; former != req.Tag.Name {
		s.tags.remove(tagKey(former))
		t.name = req.Tag.Name
		s.tags.put(tagKey(t.name), t)
		for v := range s.servers.all() {
			if i := slices.Index(v.tags, former); i >= 0 {
				v.tags[i] = t.name
			}
		}
	}
	s.changeTag(t, &req)
	return tagAnswer{s.tagEntry(t)}, nil
}

func (s *Simulator) deleteTag(c *call) (any, error) {
	t, err := s.tag(c.path("tag"))
	if err != nil {
		return nil, err
	}
	for v := range s.servers.all() {
		v.untag(t.name)
	}
	s.tags.remove(tagKey(t.name))
	return nil, nil
}

func (v *server) untag(name string) {
	v.tags = slices.DeleteFunc(v.tags, func(o string) bool { return o == name })
}

// tagsOfPath returns the server and the tags, separated by commas, that a path names.
func (s *Simulator) tagsOfPath(c *call) (*server, []*tag, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, nil, err
	}
	var tags []*tag
	for name := range strings.SplitSeq(c.path("tags"), ",") {
		t, err := s.tag(name)
		if err != nil {
			return nil, nil, err
		}
		tags = append(tags, t)
	}
	return v, tags, nil
}

func (s *Simulator) tagServer(c *call) (any, error) {
	v, tags, err := s.tagsOfPath(c)
	if err != nil {
		return nil, err
	}
	for _, t := range tags {
		v.untag(t.name)
		v.tags = append(v.tags, t.name)
	}
	return s.serverDetails(v), nil
}

func (s *Simulator) untagServer(c *call) (any, error) {
	v, tags, err := s.tagsOfPath(c)
	if err != nil {
		return nil, err
	}
	for _, t := range tags {
		v.untag(t.name)
	}
	return s.serverDetails(v), nil
}
