package settings

import (
	"strings"

	v1 "k8s.io/api/core/v1"
)

// UnclearKeeping are mistakes in the annotations that keep a load balancer from being deleted. Other ones keep no Service from going; but
// these were there to save the load balancer, and it cannot be had back.
func UnclearKeeping(service *v1.Service) []Problem {
	var problems []Problem
	for _, name := range []string{RetainName, ProtectionName} {
		value, given := service.Annotations[AnnotationPrefix+name]
		if _, err := boolean.parse(strings.TrimSpace(value)); given && err != nil {
			problems = append(problems, InvalidAnnotation(name, value, "want "+boolean.allowed))
		}
	}
	return problems
}
