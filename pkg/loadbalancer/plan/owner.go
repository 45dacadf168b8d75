package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Cluster is how a controller's configuration names its cluster. ID may be empty. UID is that of its namespace kube-system, empty where
// it is not known.
type Cluster struct{ ID, Name, UID string }

// claim says whose something is that carries a cluster's ID and name. A name alone never makes it ours: clusters are called
// kubernetes unless somebody gives them a name.
func (c Cluster) claim(id, name string) cloud.Claim {
	switch {
	case id != "" && id == c.ID:
		return cloud.ClaimOurs
	case id != "", name != "" && name != c.Name:
		return cloud.ClaimOther
	}
	return cloud.ClaimNone
}

// Trace is what something in the account tells of the Service that it was made for.
type Trace struct {
	Claim cloud.Claim
	// Words name the Service for a person, as far as the account does; names may be cut short.
	Words string
	// ClusterUID is the UID of the cluster that made it; empty where the account does not say.
	ClusterUID string
	// Created is when the youngest part was made; zero where the API does not tell.
	Created time.Time

	uid, generated, key string // one of them
}

// Of reports whether it was made for a Service.
func (t Trace) Of(cluster Cluster, service *v1.Service) bool {
	identity := NewIdentity(cluster.ID, cluster.Name, service).InCluster(cluster.UID)
	switch {
	case t.uid != "":
		return t.uid == identity.ServiceUID
	case t.key != "":
		return t.key == identity.ServiceKey()
	}
	return t.generated != "" && slices.Contains([]string{identity.LegacyName, identity.plainName, identity.Name}, t.generated)
}

// Key is that of the Service's parts on a shared load balancer, whichever cluster made them.
func (t Trace) Key() Key { return Key{service: t.key} }

// Same reports whether both traces are of the same Service.
func (t Trace) Same(other Trace) bool {
	return t.uid == other.uid && t.key == other.key && (t.uid+t.key != "" || t.generated == other.generated)
}

// TraceOf reads whom a load balancer was made for alone; false if nothing says that it was made for a Service.
func (c Cluster) TraceOf(lb *cloud.LoadBalancer) (Trace, bool) {
	uid, told := lb.Labels[settings.LabelServiceUID]
	generated := lb.Labels[settings.LabelGeneratedName]
	if _, group := lb.Labels[settings.LabelSharedGroup]; group || told && uid == "" || !told && generated == "" {
		return Trace{}, false
	}
	return Trace{
		Claim: c.claim(lb.Labels[settings.LabelClusterID], lb.Labels[settings.LabelClusterName]), Words: generated, Created: lb.Created,
		ClusterUID: lb.Labels[settings.LabelClusterUID], uid: uid, generated: generated,
	}, true
}

// IsRenamed reports whether a person gave a load balancer another name than it was made with. name is the one that it has, or had
// before a program changed it.
func IsRenamed(lb *cloud.LoadBalancer, name string) bool {
	generated := lb.Labels[settings.LabelGeneratedName]
	return generated != "" && name != generated && !NotesOf(lb.Labels, settings.LabelComponents).Has(NoteLoad("name"))
}

// RetainedOn reads whom a load balancer served that the annotation retain left in the account, and that is no Service's now; false if nothing
// says so. What an earlier version left does not name its Service.
func (c Cluster) RetainedOn(lb *cloud.LoadBalancer) (Trace, bool) {
	_, group := lb.Labels[settings.LabelSharedGroup]
	_, made := lb.Labels[settings.LabelComponents]
	owner := lb.Labels[settings.LabelRetainedFor]
	if group || isClaimed(lb) || owner == "" && !(made && lb.Labels[settings.LabelClusterName] != "") {
		return Trace{}, false
	}
	return Trace{Claim: c.claim(lb.Labels[settings.LabelClusterID], lb.Labels[settings.LabelClusterName]), Words: owner, Created: lb.Created,
		ClusterUID: lb.Labels[settings.LabelClusterUID]}, true
}

// Uninvited names what is on a load balancer and was not made for its Service. On one that UpCloud's own CCM made everything
// was: that controller left nothing else there. Where the notes were taken off, nothing says what was made for the Service.
func Uninvited(lb *cloud.LoadBalancer) []string {
	if _, noted := lb.Labels[settings.LabelComponents]; !noted && lb.Labels[settings.LabelClusterUID] == "" {
		return nil
	}
	ours := NotesOf(lb.Labels, settings.LabelComponents)
	var all []string
	for _, frontend := range lb.Frontends {
		if !ours.hasFrontend(frontend.Name) {
			all = append(all, "frontend "+frontend.Name)
		}
		for _, rule := range frontend.Rules {
			if ours.hasFrontend(frontend.Name) && !ours.Has(noteRule(frontend.Name, rule.Name)) {
				all = append(all, "rule "+rule.Name)
			}
		}
	}
	for _, backend := range lb.Backends {
		if !ours.HasBackend(backend.Name) {
			all = append(all, "backend "+backend.Name)
		}
	}
	return all
}

// TracesOn reads whom the components of a shared load balancer were made for, one trace for each Service.
func (c Cluster) TracesOn(lb *cloud.LoadBalancer) []Trace {
	byKey := map[string]Trace{}
	add := func(name string, created time.Time) {
		found := ownedName.FindStringSubmatch(name)
		if found == nil {
			return
		}
		trace := Trace{Claim: c.claimOfDigest(found[1]), Words: OwnerOf(name), Created: created, key: found[2]}
		if before, known := byKey[trace.key]; known {
			trace.Words = before.Words
			if before.Claim != trace.Claim {
				trace.Claim = cloud.ClaimNone
			}
			if before.Created.After(created) {
				trace.Created = before.Created
			}
		}
		byKey[trace.key] = trace
	}
	for _, backend := range lb.Backends {
		add(backend.Name, backend.Created)
	}
	for _, frontend := range lb.Frontends {
		for _, config := range frontend.TLSConfigs {
			if found := ownedName.FindStringSubmatch(config.Name); found != nil {
				add(config.Name, byKey[found[2]].Created)
			}
		}
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b Trace) int { return strings.Compare(a.key, b.key) })
}

// claimOfDigest is claim for the digest that the names of shared components have.
func (c Cluster) claimOfDigest(digest string) cloud.Claim {
	switch {
	case c.ID != "" && digest == hexDigest(c.ID, 8):
		return cloud.ClaimOurs
	case digest == hexDigest(c.Name, 8): // made before there was an ID, or where there is none
		return cloud.ClaimNone
	}
	return cloud.ClaimOther
}

// TraceOfBundle reads whom a certificate bundle was made for; false if nothing says that it was made for a Service.
func (c Cluster) TraceOfBundle(bundle *cloud.CertificateBundle) (Trace, bool) {
	uid := bundle.Labels[settings.LabelServiceUID]
	return Trace{
		Claim: c.claim(bundle.Labels[settings.LabelClusterID], bundle.Labels[settings.LabelClusterName]), Words: bundle.Name, Created: bundle.Created, uid: uid,
		ClusterUID: bundle.Labels[settings.LabelClusterUID],
	}, uid != ""
}

// AsksFor reports whether a Service may ask for the certificate bundle of that name. Where its annotations are not understood, it
// may.
func (c Cluster) AsksFor(service *v1.Service, bundle string) bool {
	asked, problems := settings.Parse(service)
	if len(problems) > 0 {
		return true
	}
	identity := NewIdentity(c.ID, c.Name, service).InCluster(c.UID)
	for _, identity.Generated = range []string{identity.Name, identity.plainName, identity.LegacyName} {
		if identity.IsBundleOf(BundleNames(asked, identity), bundle) {
			return true
		}
	}
	return false
}

// GroupOf is the group that a load balancer was made for, and whether anything is on it.
func (c Cluster) GroupOf(lb *cloud.LoadBalancer) (group string, claim cloud.Claim, used bool) {
	return lb.Labels[settings.LabelSharedGroup], c.claim("", lb.Labels[settings.LabelClusterName]), InUse(lb)
}

// SharesGroup reports whether a Service asks for the load balancer of a group. Where its annotations are not understood, it may.
func SharesGroup(service *v1.Service, group string) bool {
	asked, problems := settings.Parse(service)
	return len(problems) > 0 || asked.Shared != nil && asked.Shared.Group == group
}
