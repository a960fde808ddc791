// Runs a Jenkinsfile outside Jenkins: prints every command instead of running it.
// groovy jenkins_double.groovy JENKINSFILE PLAN_JSON EXIT_CODES CHANGE_ID
import groovy.json.JsonSlurper
import org.codehaus.groovy.control.CompilerConfiguration

abstract class JenkinsDouble extends Script {
    static Map plan
    static List codes
    static Map env = [:]
    static List held = []
    def scm = 'scm'

    def within(Closure body) { body.delegate = this; body.resolveStrategy = Closure.DELEGATE_FIRST; body() }
    def getEnv() { env }
    def pipeline(Closure body) { within(body) }
    def agent(what) { if (what instanceof Closure) { within(what) } }
    def getNone() { 'none' }
    def options(Closure body) { within(body) }
    def timestamps() { }
    def disableConcurrentBuilds() { }
    def stages(Closure body) { within(body) }
    def stage(String name, Closure body) { println "stage ${name}"; within(body) }
    def steps(Closure body) { within(body) }
    def label(String name) { println "agent ${name}" }
    def script(Closure body) { within(body) }
    def node(String label, Closure body) { println "node ${label}"; within(body) }
    def checkout(what) { }
    def stash(Map options) { println "stash ${options.name}" }
    def unstash(String name) { println "unstash ${name}" }
    def archiveArtifacts(Map options) { println "archive ${options.artifacts}" }
    def junit(Map options) { println "junit ${options.testResults}" }
    def readJSON(Map options) { plan }
    def lock(String name, Closure body) { println "lock ${name}"; within(body) }
    def error(String message) { throw new RuntimeException(message) }
    def sh(String command) { println "sh ${command}"; 0 }
    def sh(Map options) { println "sh ${options.script}"; codes ? codes.remove(0) : 0 }
    def parallel(Map branches) {
        branches.findAll { it.value instanceof Closure }.each { name, body ->
            try { within(body) } catch (RuntimeException failure) { println "failed ${name}: ${failure.message}" }
        }
    }
}

JenkinsDouble.plan = new JsonSlurper().parse(new File(args[1]))
JenkinsDouble.codes = args[2].tokenize(',').collect { it as int }
if (args[3]) { JenkinsDouble.env.CHANGE_ID = args[3] }
def configuration = new CompilerConfiguration(scriptBaseClass: JenkinsDouble.name)
new GroovyShell(this.class.classLoader, new Binding(), configuration).evaluate(new File(args[0]))
