package loadbalancer

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// knownDefects are mistakes that cloud controller managers have been seen to make with load balancers, on UpCloud and elsewhere, and
// the tests that keep this one from making them. Who removes or renames such a test has to say here what stands for it.
var knownDefects = []struct {
	defect string
	tests  []string
}{
	{"one annotation stops the controller of the whole cluster, again and again",
		[]string{"FuzzSettings", "TestNoAnnotationPanics"}},
	{"the annotation that selects nodes never matches by its documented form",
		[]string{"TestNodesThatMayBeMembers"}},
	{"a load balancer whose creation was not answered, or not noted, is never found again: its name is taken for ever, and it is left over",
		[]string{"TestLostAnswerOfTheCreation", "TestEveryCallMayFail", "TestEveryCallMayFailWithEveryKindOfComponent"}},
	{"a Service that stops being a LoadBalancer and is one again loses track of its load balancer",
		[]string{"TestServiceUnderTheRealControllers", "TestLifeOfALoadBalancer"}},
	{"the ID of somebody's load balancer in an annotation is enough to rewrite and delete it",
		[]string{"TestAnnotationIsNoProof", "TestTakenNameIsNotTakenOver", "TestAnotherClustersIsNotTakenOverByName"}},
	{"a change of nodes replaces the whole load balancer, with all that Terraform, a person or a newer API has put on it",
		[]string{"TestOthersComponentsStay", "TestMembersKeepUnknownFields", "TestNodeJoinsAndLeaves", "FuzzDiff"}},
	{"the wish is compared with what the API has made of it: a difference for ever, and a reload at each reconcile",
		[]string{"TestEveryFeatureSettles", "TestUnchangedReconcileIsOneCall", "FuzzDiff"}},
	{"a configuration that lists some ports takes the others away",
		[]string{"TestPortsThatTheConfigurationDoesNotListAreServed", "TestFeatures"}},
	{"the limit of members holds for a reconcile, and not for a change of nodes",
		[]string{"TestTheLimitOfMembersHoldsInEveryCall", "TestLimitIsStable"}},
	{"no node left, or none selected, takes all members away",
		[]string{"TestNoNodesLeaveTheMembers", "TestMembers"}},
	{"one call that is not answered, or one wish for patience, holds every Service of the cluster",
		[]string{"TestNoCallHoldsAWorkerForLong", "TestOneSlowLoadBalancerHoldsUpNoOther", "TestOneSlowLoadBalancerHoldsUpNoOthersPods",
			"TestKeyedLocks"}},
	{"loadBalancerSourceRanges are ignored, and the Service is open to all",
		[]string{"TestSourceRangesAreEnforcedFromTheFirstMoment", "TestProblems", "TestFeatures", "TestRefusalSaysWhatBecomesOfTheLoadBalancer"}},
	{"a UDP port becomes an HTTP frontend",
		[]string{"TestUnsupportedProtocol", "TestUDPServiceIsToldWhy"}},
	{"mode http with timeouts of ten seconds breaks whatever is not a short HTTP request",
		[]string{"TestCreateGolden", "TestDefaultModeOfNewPorts"}},
	{"nodes outside the controller's scope become members",
		[]string{"TestNodesThatMayBeMembers"}},
	{"one node in another network keeps every new load balancer from being made",
		[]string{"TestChoosePlacement"}},
	{"a change of zone or network, which cannot be, is tried for ever",
		[]string{"TestPrivateLoadBalancer", "TestNetworksThatAreAskedFor"}},
	{"a Service goes before its load balancer and certificates have, which are then left over",
		[]string{"TestWaitingIsLeftToTheController", "TestCertificatesGoWithTheService", "TestListThatLagsBehindTheDeletion",
			"TestCertificateForTheOwnName"}},
	{"names are cut so that two Services want one name, or share a certificate",
		[]string{"TestNames", "TestLongNamesStayApart", "TestCertificatesGoWithTheService"}},
	{"a load balancer made by an earlier version, or by another name of the cluster, is made anew",
		[]string{"TestTakeOver", "TestTakeOverChangesNothing"}},
	{"a dual-stack node becomes two members of one name, which the API refuses",
		[]string{"TestTargets"}},
	{"an empty plan, or one that there is not, leads to members without sessions",
		[]string{"TestPlanChange", "TestLifeOfALoadBalancer"}},
	{"sessionAffinity, loadBalancerIP, missing node ports and IP families are ignored without a word",
		[]string{"TestProblems", "TestRemarksAreMadeOnce", "TestFloatingAddressOutlivesTheLoadBalancer"}},
	{"networks of other names than the usual break every frontend",
		[]string{"TestTakeOverChangesNothing", "TestEveryFeatureSettles", "TestPrivateLoadBalancer"}},
	{"a node that gets its addresses late is no member until another node comes or goes",
		[]string{"TestNodeWithoutAddressesYet", "TestNodeWhoseAddressesCannotBeRead"}},
	{"each change shows as a failure, and the status waits for it",
		[]string{"TestWaitingIsLeftToTheController"}},
	{"a mistake in a Service keeps new nodes from becoming members, until none is left",
		[]string{"TestNodesAreReplacedWhileAServiceHasAMistake", "TestNodesAreReplacedWhileASharingServiceHasAMistake",
			"TestMembersOfTheConfigurationStayDespiteMistakes", "TestUDPPortBesideItsTCPTwinIsARemark"}},
	{"TLS that is to be passed through is terminated still, and Pods get plain text", []string{"TestTLSPassthroughAfterATakeOver"}},
	{"one Secret that is missing, or any other mistake, stops the renewal of all certificates",
		[]string{"TestCertificatesAreRenewedWhileAServiceHasAMistake"}},
	{"a restart of the API server or of the controller deletes load balancers, or stops their members from following the nodes",
		[]string{"TestServiceOfTheClassLooksTheSameEachTime", "TestRestartsKeepTheLoadBalancersOfTheAddOn"}},
	{"Services whose names were cut to the same text take over or delete each other's load balancers",
		[]string{"TestOwns", "TestCutNameIsNoReasonToDeleteAnothersLoadBalancer", "TestDeletionFollowsNoCutName",
			"TestServiceOfTheSameCutNameGetsItsOwnLoadBalancer", "TestLoadBalancerThatTwoServicesNameIsNotChanged"}},
	{"etcd is set back to before a Service was made, and its load balancer is deleted", []string{"TestServiceThatVanishedKeepsItsLoadBalancer"}},
	{"a cluster that is restored from another's etcd takes over or deletes the other's load balancers",
		[]string{"TestCopyOfAClusterLeavesTheOriginalsLoadBalancers", "TestClusterIDThatIsAddedKeepsTheLoadBalancer",
			"TestCopyOfAClusterLeavesTheOriginalsPartsOfASharedLoadBalancer", "TestClusterIDThatIsAddedKeepsThePartsOfASharedLoadBalancer"}},
	{"a certificate that is rotated in its Secret is never uploaded again",
		[]string{"TestFollowSecrets", "TestCertificateFromASecret"}},
}

func TestEveryKnownDefectHasItsTests(t *testing.T) {
	there := map[string]bool{}
	for _, folder := range []string{".", "settings", "plan", "../../cmd/ccm", "../../test/integration"} {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(folder, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				there[match[1]] = true
			}
		}
	}
	for _, known := range knownDefects {
		if len(known.tests) == 0 {
			t.Errorf("no test keeps from this: %s", known.defect)
		}
		for _, name := range known.tests {
			if !there[name] {
				t.Errorf("there is no %s, which kept from this: %s", name, known.defect)
			}
		}
	}
}
