package settings

import (
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// What a mistake in annotations leaves unclear. Whatever is clear goes on: nodes join and leave while a Service waits to be corrected.

// nodeAnnotations choose which nodes become members, and how many.
var nodeAnnotations = []string{NodeSelectorName, maxMembersName}

// NodesUnclear says whether a mistake may be about which nodes become members: one in an annotation that chooses them, or an annotation
// that does not exist and may be one of those misspelt. A Service with more than can be read leaves it unclear, too.
func NodesUnclear(service *v1.Service) bool {
	if tooManyPorts(service) != nil {
		return true
	}
	unknown := 0
	for _, key := range slices.Sorted(maps.Keys(service.Annotations)) {
		name, ours := strings.CutPrefix(key, AnnotationPrefix)
		if !ours || isAnnotation(name) {
			continue
		}
		if unknown++; unknown > maxProblems || slices.Contains(nodeAnnotations, nearest(name)) {
			return true
		}
	}
	for _, setting := range Table {
		value, given := service.Annotations[AnnotationPrefix+setting.Name]
		if !given || !slices.Contains(nodeAnnotations, setting.Name) {
			continue
		}
		if setting.checkSize(value) != nil || setting.apply(strings.TrimSpace(value), service, &Settings{}) != nil {
			return true
		}
	}
	return false
}

// MembersUnclear says whether the members of a backend may be others than nodes: the JSON of AnnotationConfig can name them, and has a
// mistake.
func MembersUnclear(service *v1.Service) bool {
	text, given := service.Annotations[AnnotationConfig]
	if !given {
		return false
	}
	config, err := parseOverlay(text)
	if err != nil {
		return true
	}
	all := &Settings{}
	for _, port := range service.Spec.Ports {
		all.Ports = append(all.Ports, newPort(port))
	}
	return config.applyTo(all) != nil
}
