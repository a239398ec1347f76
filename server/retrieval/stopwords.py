"""Function words by language: they tell the language of a short text, and are dropped from questions."""

from __future__ import annotations

from typing import Final

# Names are those of the Snowball stemmers. A word may be in several lists; accents are kept, since they tell languages
# apart.
STOP_WORDS: Final[dict[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in {
        "english": (
            "a about after all also am an and any are aren't as at be because been before being both but by can "
            "can't could couldn't did didn't do does doesn't doing don't down during each few for from further "
            "had hadn't has hasn't have haven't having he he's her here hers herself him himself his how i i'd "
            "i'll i'm i've if in into is isn't it it's its itself just let's me more most my myself no nor not "
            "of off on once only or other our ours ourselves out over own same she she's should shouldn't so "
            "some such than that that's the their theirs them themselves then there there's these they they're "
            "this those through to too under until up us very was wasn't we we're were weren't what what's when "
            "where which while who whom whose why will with won't would wouldn't you you'd you'll you're you've "
            "your yours yourself"
        ),
        "german": (
            "aber alle als also am an auch auf aus bei bin bis bist da damit dann das dass dein deine dem den "
            "der des dich die dies diese dieser dieses dir doch du durch ein eine einem einen einer eines er es "
            "euch für hab habe haben hat hatte hätte ich ihm ihn ihr ihre im in ist ja kann kein keine können "
            "mal man mein meine meinem meinen meiner mich mir mit muss nach nicht noch nur ob oder ohne schon "
            "sein seine sich sie sind so über um und uns unser unter vom von vor wann war waren warum was weil "
            "welche welchen welcher welches wem wen wenn wer werden wie wieder will wir wird wo wollen wurde "
            "würde zu zum zur"
        ),
        "french": (
            "ai as au aussi aux avais avait avec avez avoir avons c'est ce cela ces cet cette comme comment "
            "dans de des du elle elles en est est-ce et été être eu fait il ils j'ai je la le les leur leurs "
            "lui ma mais me mes moi mon même ne nos notre nous on ont ou où par pas pendant plus pour pourquoi "
            "qu'est-ce quand que quel quelle quelles quels qui quoi s'est sa sans se ses si son sont sous suis "
            "sur ta te tes toi ton tous tout très tu un une vos votre vous y à était"
        ),
        "spanish": (
            "a al algo como con cuando cuál cuándo cuánto cómo de del desde donde dónde el ella ellas ellos en "
            "entre era eres es esa ese eso esta estaba este esto está están fue fui ha han hay he hemos hoy la "
            "las le les lo los me mi mis mucho muy más ni no nos nosotros o para pero por porque qué que quién "
            "se ser si sin sobre son soy su sus sí también te tengo ti tiene tu tus tú un una unas unos y ya yo "
            "él"
        ),
        "italian": (
            "a ad ai al alla alle anche che chi ci come con cosa così cui da dal dalla dei del della delle di "
            "dove e ed era gli ha hai hanno ho i il in io la le lei lo loro lui ma mi mia mio molto ne nei nel "
            "nella noi non nostro o per perché però più qual quale quali quando quanto quello questa questo se "
            "sei si siamo sono sta su sua sul sulla suo ti tu tuo tutti un una uno vi voi è"
        ),
        "portuguese": (
            "a ao aos as até com como da das de dela dele depois do dos e ela ele eles em entre era essa esse "
            "esta este eu foi há isso isto já lhe mais mas me meu meus minha minhas muito na nas nem no nos não "
            "nós o onde os ou para pela pelo por porque qual quando que quem se sem ser seu seus sua suas são "
            "também te tem tenho teu tua um uma você vocês à é está"
        ),
        "dutch": (
            "aan al alles als ben bij daar dan dat de der deze die dit doen door dus een en er ge geen had heb "
            "hebben heeft hem het hier hij hoe hun ik in is ja je jij jouw kan kon maar me meer men met mij "
            "mijn moet na naar niet niets nog nu of om omdat onder ons ook op over te tegen toch toen tot u uit "
            "uw van veel voor waar waarom wanneer waren was wat we welke wel werd wie wij wil worden zal ze "
            "zich zij zijn zo zonder zou"
        ),
        "swedish": (
            "alla att av blev bli då de dem den denna det detta dig din ditt du efter eller en ett för från ha "
            "hade han har hon hur här i icke ingen inte jag kan med mellan men mig min mitt mot mycket ni när "
            "nu någon något och om oss på sedan sig sin ska skulle som så till under upp ut vad var varför vem "
            "vi vid vilken är än åt över"
        ),
        "danish": (
            "af alle at blev bliver da de dem den der deres det dig din dog du efter eller en er et for fra ham "
            "han har havde hun hvad hvem hver hvis hvor hvorfor hvornår ikke ind jeg jer kan man med meget men "
            "mig min mit mod når noget nogle nu og også om op os over på sig skal skulle som sådan til ud under "
            "var vi vil være"
        ),
        "norwegian": (
            "alle at av ble bli da de dem den der deres det dette du eller en er et etter for fra ha hadde han "
            "har henne hun hva hvem hver hvis hvor hvordan hvorfor ikke ingen jeg kan man med meg mellom men "
            "min mitt mot når noe noen nå og også om opp oss på seg skal skulle som så til ut var ved vi vil "
            "være"
        ),
        "finnish": (
            "ei en että hän he ja jos joka jotka kanssa koska kuin kuka kun me mikä milloin minkä minulla minun "
            "minä missä mitä miksi miten mutta mun mä ne nyt ole oli olen olet olivat on ovat se sekä sinun "
            "sinä sitä sä te tai tämä vai vain vaikka"
        ),
        "polish": (
            "ale albo aby bez był była było były by być ci co czy dla do gdy gdzie go i ich ile ja jak jaka "
            "jaki jakie je jego jej jest jestem jeszcze już kiedy kto który która które lub ma mam mi mnie mój "
            "moja moje może na nad nie nim o od on ona oni po pod przez przy się są ta tak także tam te tego "
            "ten to tu ty w we więc wszystko z za ze że"
        ),
        "romanian": (
            "a ai al ale am are au avea ca care când ce cel cine cu cum da dar de din după e ea ei el este eu "
            "fi fost în îl îmi la le lor lui mai mă mea mei meu mi ne nici noi nu o pe pentru prin sa să se și "
            "sunt te tu un una unde unui va vă voi"
        ),
        "turkish": (
            "ama ben bana bende beni benim bir biz bu bunu çok da daha de değil diye en gibi hem hiç için ile "
            "ise kadar ki kim mi mı mu mü nasıl ne neden nerede niçin o olan olarak onlar onu sen şey siz şu "
            "var ve veya ya yok"
        ),
        "indonesian": (
            "ada adalah aku anda apa atau bagaimana bahwa bisa dalam dan dari dengan di dia ini itu juga kami "
            "kamu kapan karena ke kepada kita lagi mana mereka mengapa pada saya sangat sebagai seperti siapa "
            "sudah tidak untuk yang"
        ),
        "czech": (
            "a aby ale ani bych byl byla bylo být co do ho i jak jaký je jeho její jejich jen ještě jsem jsi "
            "jsme jsou k kde kdo kdy když která které který má mám mě mi mít můj my na nebo není o od po pro "
            "proč protože s se si tak také tam to ty u už v ve více z za že"
        ),
        "hungarian": (
            "a az azt be csak de egy el ez ezt és fel ha hanem hány hogy hogyan hol igen is itt ki le lesz ma "
            "már meg mi miért mikor milyen mint mit most nem olyan ő ők pedig s sem te ti vagy van volt vele"
        ),
        "russian": (
            "а без был была были было быть в вам вас весь во вот все всё вы где да для до его её ей если есть "
            "ещё же за и из или им их к как какая какие какой когда который кто куда ли мне меня мой моя мы на "
            "над не него нет ни но ну о об он она они оно от по под почему при про с сколько со так там те тебя "
            "тем то тоже только ты у уже чем что чтобы чья эта эти это этот я"
        ),
        "greek": (
            "από αυτό αυτή αυτός για δε δεν είναι είχα είχε ενώ εγώ εμείς εσύ έχει έχω η θα και κι με μου μας "
            "μην μα να ο οι όταν ότι πού ποια ποιο ποιος πότε που πως πώς σε σου στη στην στο στον τα της τη "
            "την τι το τον του των ως"
        ),
        "arabic": (
            "أن إلى أنا أنت أو أي أين إن التي الذي الى ان انا انت او اي اين بعد عن على في كان كانت كل كم كيف لا "
            "لم لن له لها لماذا ما ماذا متى مع من منذ ها هذا هذه هل هم هنا هو هي و يا"
        ),
        "persian": (
            "از است این با بر برای به بود تا تو چرا چه چون چی در را شد شما کجا کدام که کی ما من می نه هر هم و ی "
            "یا یک آن او های"
        ),
        "hindi": (
            "और का की के को क्या क्यों कब कहाँ कहां कैसे कौन जो तो था थी थे ने पर भी मुझे में मेरा मेरी मेरे मैं यह ये वह वे से हम हूँ हूं है हैं हो"
        ),
    }.items()
}
