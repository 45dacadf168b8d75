package doctor

import (
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// keepKeys are keys of labels by which people and programs say that a thing is to stay. Case, and _ for -, do not matter.
var keepKeys = []string{"keep", "retain", "do-not-delete", "protect", "protected", "deletion-protection"}

// managerKeys are keys of labels that name who looks after a thing.
var managerKeys = []string{"managed-by", "managedby", "made-by", "created-by", "owner", "terraform"}

// backupTools are words in labels' keys and titles by which backup tools are known.
var backupTools = []string{"velero", "kasten", "k10", "stash", "restic", "trilio", "cloudcasa"}

// keptBy says which signal on a thing says that it is to be kept; empty when none does.
func keptBy(labels map[string]string, title string) string {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value, plain := labels[key], strings.ReplaceAll(strings.ToLower(key), "_", "-")
		switch {
		case slices.Contains(keepKeys, plain) && !slices.Contains([]string{"false", "no", "0"}, strings.ToLower(value)):
			return "label " + key + "=" + value
		case slices.Contains(managerKeys, plain) || strings.HasPrefix(plain, "terraform"):
			return "label " + key + "=" + value + " says that something else looks after it"
		case ofBackupTool(key):
			return "label " + key + "=" + value + " is a backup tool's"
		}
	}
	switch word := strings.ToLower(title); {
	case strings.Contains(word, "keep"):
		return "its title says keep"
	case ofBackupTool(title):
		return "its title is a backup tool's"
	}
	return ""
}

func ofBackupTool(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(backupTools, func(tool string) bool {
		return strings.HasPrefix(text, tool) || strings.Contains(text, "-"+tool) || strings.Contains(text, tool+"-") || strings.Contains(text, tool+"/")
	})
}

// balancerKeptBy is keptBy for a load balancer, whose name is made of its Service's.
func balancerKeptBy(lb *cloud.LoadBalancer) string {
	if name := nameBefore(lb); plan.IsRenamed(lb, name) && !isSuffixed(name, lb) {
		return "its name was changed"
	}
	return keptBy(lb.Labels, "")
}

// storageKeptBy is keptBy for a disk or a backup, with the signals that only those have.
func (v *view) storageKeptBy(s *cloud.Storage) string {
	title := plainTitle(s.Title)
	importedBy, imported := s.Labels[cloud.LabelImport]
	switch {
	case imported: // perhaps handed over to another cluster, whose PersistentVolumes are not seen here
		return "label " + cloud.LabelImport + "=" + importedBy + " gives it to a cluster"
	case v.favorites[s.ID]:
		return "it is a favourite in the control panel"
	case s.Role == cloud.RoleVolume && s.Name != "" && title != s.Name:
		return "its title was changed"
	case s.Role == cloud.RoleVolume && v.named[s.Name] > 1:
		return "another storage carries the same name: one is a copy made by hand"
	}
	// The name of a volume is made by a program, and says nothing of anybody's wish.
	if title == s.Name {
		title = ""
	}
	return keptBy(s.Labels, title)
}
