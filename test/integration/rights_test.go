package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// notHere are rights that these tests do not use, and why they are granted all the same.
var notHere = map[string]string{
	"list nodes":    "API servers that cannot send lists as streams, which is how the client reads them first",
	"list services": "the same",

	"list endpointslices":  "only Services with externalTrafficPolicy Local and more nodes than members need them",
	"watch endpointslices": "the same",
}

// checkRights reads what an API server noted of the ccm's service account, on the shared one in all tests together. Nothing may
// have been refused, and every right of the roles that were applied must have been used.
func checkRights(client kubernetes.Interface, audit string) error {
	used, faults, err := readAudit(audit)
	if err != nil {
		return err
	}
	rules, err := appliedRules(client)
	if err != nil {
		return err
	}
	for _, right := range rules {
		if !used[right] && notHere[right] == "" {
			faults = append(faults, fmt.Errorf("a role grants a right that no test uses: %s: take it away, or say in notHere why", right))
		}
	}
	return errors.Join(faults...)
}

func readAudit(path string) (used map[string]bool, faults []error, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	used = map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb           string
			RequestURI     string
			ObjectRef      struct{ APIGroup, Resource, Subresource string }
			ResponseStatus struct{ Code int }
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, nil, err
		}
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		right := event.Verb + " " + resource
		used[right] = true
		if event.ResponseStatus.Code == 403 {
			faults = append(faults, fmt.Errorf("the API server refused the ccm to %s (%s)", right, event.RequestURI))
		}
	}
	return used, faults, lines.Err()
}

// appliedRules are the rights of the ccm's own roles.
func appliedRules(client kubernetes.Interface) (rights []string, err error) {
	role, err := client.RbacV1().ClusterRoles().Get(context.Background(), "upcloud-ccm", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	local, err := client.RbacV1().Roles("kube-system").Get(context.Background(), "upcloud-ccm", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	secrets, err := client.RbacV1().ClusterRoles().Get(context.Background(), "upcloud-ccm-secrets", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, rule := range slices.Concat(role.Rules, local.Rules, secrets.Rules) {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				rights = append(rights, strings.TrimSpace(verb+" "+resource))
			}
		}
	}
	return rights, nil
}
