"""The words that edit instructions are made of, by what they mean for an edit: the lexicon of `crispedit.classifier`.

Words are lower case, American spelling, verbs and nouns in their base form (the classifier knows inflections).
A word may stand in several classes; which one counts is for the grammar to say.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

OPERATORS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "add": """add insert include introduce incorporate superimpose overlay append equip adorn decorate install
            attach plant create generate build write draw sprinkle scatter embed garnish composite provide load
            embellish stock furnish supply cap crown apply surround accessorize dress cover fill wrap tie
            light populate erect paste""",
        "put": """put place set lay position stick drop pop mount hang park stack toss throw slap pin rest arrange
            lean seat locate situate nestle fit isolate drape shoot photograph capture film""",
        "give": "give grant lend hand",
        "remove": """remove delete erase eliminate discard omit ditch scrap banish strip wipe scrub clean clear empty
            drain dismiss unhook detach unplug hide vacate depopulate evict subtract withdraw retouch heal
            uninstall shave pluck peel dispose unload sweep melt lose drop obliterate annihilate vaporize
            extract expunge nix exclude dump purge undo inpaint crop cut kill mask weed tidy rub bald""",
        "replace": "replace swap substitute exchange switch trade interchange upgrade",
        "turn": """turn change transform convert alter morph transmute modify adjust reimagine render depict
            reinterpret recreate redo remake vary update evolve mutate show set blur defocus""",
        "recolor": """color recolor paint repaint dye tint bleach tan stain whiten blacken redden lighten darken
            brighten gild desaturate saturate spray shade coat fill invert""",
        "cause": "make have let get keep leave want need force ask help",
        "move": """move shift slide reposition relocate transport teleport transfer rotate spin tilt flip roll push
            pull drag drive bring take send travel""",
        "style": """stylize restyle sketch cartoonify animate redraw caricature pixelate posterize vectorize colorize
            illustrate cartoonize toonify tone""",
    }.items()
}
"""Verbs that ask for an edit. Where one is in two classes, the grammar tries them in this order."""

COLORS = frozenset(
    """red blue green yellow orange purple violet pink brown black white gray teal turquoise cyan magenta
    maroon crimson scarlet burgundy navy indigo azure cobalt aqua mint olive lime emerald jade sage
    khaki beige tan cream ivory coral salmon peach apricot amber ochre mustard gold golden silver
    silvery bronze copper brass rust terracotta lavender lilac mauve plum fuchsia rose charcoal
    ebony chestnut auburn ginger blond blonde brunette walnut mahogany platinum chartreuse vermilion
    ultramarine sapphire ruby rainbow multicolored striped colorful tie-dye iridescent pastel neon
    reddish bluish greenish yellowish pinkish purplish brownish sandy strawberry caramel denim
    aubergine wine champagne pearl periwinkle tangerine pale hazel taupe camel redder bluer greener
    yellower darker lighter brighter paler whiter blacker pinker""".split()
)
COLOR_MODIFIERS = frozenset(
    """light dark deep bright pale vivid vibrant intense saturated sparkling subtle fresh lush matte glossy
    metallic warm warmer cool cooler soft dusty royal baby sky forest navy hot electric neon pastel
    bold rich muted shiny glowing plain very slightly more less much completely entirely fully all
    solid pure shade tone hue tint color colored color-scheme version finish one ones a an the of
    and or with stripe dot half its own that is something like in to chocolate      
              seafoam sunburst slate steel ash       blood midnight
    flesh skin smoky creamy""".split()
)
"""Words that may stand beside a color without being another thing: "a deeper shade of red", "a yellow one"."""
COLOR_THINGS = frozenset(
    """orange rose peach lime plum olive salmon camel lavender lilac violet chestnut walnut pearl wine champagne
    strawberry tangerine apricot coral rainbow mustard mint cream lemon ruby emerald""".split()
)
"""Colors that are things too, when an article stands before them: "an orange"."""
COLOR_NOUNS = frozenset("color hue shade tint paint lipstick".split())

STYLE_NOUNS = frozenset(
    """style painting watercolor sketch drawing illustration cartoon anime manga comic caricature mosaic
    woodcut linocut engraving etching lithograph fresco mural-style tapestry embroidery collage
    cutout silhouette-art blueprint doodle graffiti-art poster-art pixel-art voxel pixel 8-bit
    16-bit low-poly art artwork render rendering rendition claymation stop-motion origami papercraft
    lego minecraft polaroid daguerreotype sepia monochrome grayscale noir hdr bokeh-art filter
    effect look-and-feel aesthetic aesthetics vibe treatment impressionism expressionism surrealism
    cubism fauvism pointillism realism romanticism minimalism futurism baroque rococo renaissance
    bauhaus deco nouveau pop-art ukiyo-e synthwave vaporwave cyberpunk steampunk dieselpunk
    solarpunk impasto gouache pastel-drawing crayon charcoal graphite pencil ink oil acrylic
    airbrush chalk shading oil-on-canvas woodblock silkscreen screenprint risograph print postcard
    movie film still video-game game photo-real ghibli pixar disney cross-stitch stencil vector
    line-art ascii stained-glass felt-craft brushwork brushstroke brush-stroke outline graphic
    palette grain cel-shading duotone double-exposure long-exposure infrared thermal x-ray
    tilt-shift lo-fi vhs photograph-style storybook hologram marionette diorama icon emblem relief
    canvas lomography cyanotype tintype negative halftone glitch glitch-art cinematic-look
    calligraphy kirigami quilling batik patchwork crochet felt clay plasticine papier-mache
    paper-cut fantasy sci-fi western horror grunge kawaii chibi pinup disco goth memphis suprematism
    constructivism dadaism dada romanesque byzantine hieroglyph petroglyph scroll manuscript
    miniature miniatures chiaroscuro sfumato sgraffito intaglio mezzotint aquatint lino comic-book
    storyboard flipbook clipart sticker emoji wireframe schematic film-strip kodachrome technicolor
    cross-process cross-processed autochrome bleach-bypass noire manhwa webtoon shonen looney muppet
    puppet plush brickfilm""".split()
)
TREATMENTS = frozenset(
    """filter effect look vibe aesthetic treatment tone grain finish style lut preset shading grade""".split()
)
"""What is laid over a whole picture; a style noun such as "painting" may also be a thing on a wall."""
STYLE_ADJECTIVES = frozenset(
    """stylized painterly cartoonish photorealistic photo-realistic realistic hyperrealistic surreal surrealist
    impressionist impressionistic expressionist cubist abstract minimalist gothic baroque rococo retro vintage
    cinematic dreamy ethereal psychedelic steampunk cyberpunk vaporwave synthwave monochrome monochromatic
    grayscale sepia noir hand-drawn hand-painted sketchy pixelated isometric whimsical futuristic old-fashioned
    pop-art anime comic-like grungy moody pointillist romantic art-deco low-poly flat 3d 2d animated watercolor
    painted drawn artistic fantastical gloomy nostalgic old-school hand-made handmade knitted crocheted
    embroidered medieval-style antique aged timey faded grainy warmer cooler""".split()
)
ARTISTS = frozenset(
    """gogh monet picasso rembrandt dali warhol banksy hokusai klimt vermeer matisse cezanne kandinsky munch
    michelangelo botticelli caravaggio hopper pollock lichtenstein turner raphael degas renoir gauguin seurat
    basquiat mondrian magritte miyazaki mucha escher goya titian haring hockney rothko chagall miro durer bosch
    bruegel delacroix sargent klee leger modigliani toulouse-lautrec lautrec courbet rousseau ernst bacon freud
    hiroshige kuniyoshi murakami kusama giger burton anderson kubrick pixar ghibli disney simpsons velazquez
    manet whistler constable kahlo okeeffe""".split()
)
WHOLE = frozenset(
    """image photo photograph picture scene shot portrait snapshot frame everything it this""".split()
)
"""What an instruction calls the whole picture."""

BACKGROUND = frozenset(
    """background backdrop backgrounds sky skies setting scenery surrounding environment location season
    weather landscape horizon skyline background-people atmosphere time-of-day scenario""".split()
)
PLACES = frozenset(
    """beach seashore forest jungle desert mountain mountains hill field meadow garden park city town village street
    road alley market museum library office kitchen bedroom bathroom room studio cafe restaurant
    church cathedral castle palace courtyard temple stadium arena racetrack school classroom
    hospital airport station harbor island lake river ocean sea seaside shore coast canyon valley
    cliff cave volcano waterfall swamp marsh tundra glacier savanna prairie farm barnyard vineyard
    orchard rainforest woods woodland countryside landscape cityscape skyline metropolis space
    galaxy universe moon mars planet underwater aquarium spaceship runway rooftop subway tunnel
    battlefield ruins wonderland paradise oasis playground backyard gym pool plaza square alps
    himalayas hawaii paris london tokyo rome venice york egypt india china japan africa antarctica
    amazon pole bridge interior indoors indoor outdoors outdoor countertop marble world laboratory
    factory warehouse dungeon ballroom theater stage alleyway pyramids slope dune lagoon bay fjord
    nebula north south lights aurora hallway living-room bookcase bookshelf curtain wall surface
    backstage cockpit cabin pier boardwalk wheat zoo circus bakery supermarket shop store mall
    highway attic basement garage monastery graveyard cemetery dock marina port carnival fairground
    casino nightclub club observatory greenhouse balcony terrace patio porch elevator corridor
    mosque pagoda ranch plain steppe moor cove reef seabed outback avenue boulevard intersection
    past future era century ages campsite campfire meadowland cornfield ballpark gallery deck
    mountaintop hilltop grass salon workshop kingdom""".split()
)
STANDING = frozenset(
    """castle church cathedral palace temple bridge wall curtain bookcase bookshelf countertop marble wheat
    lights pole north south square surface stadium theater tower shop store elevator mosque pagoda
    cabin spaceship runway volcano waterfall pool fence campfire moon mars planet plain track court
    path house""".split()
)
"""Places that, as the name of a result, are rather things: "turn the church into a castle"."""
TIMES_AND_WEATHER = frozenset(
    """night nighttime day daytime daylight dawn dusk sunrise sunset midnight noon midday morning evening afternoon
    twilight winter summer spring autumn fall christmas halloween rain snow storm thunderstorm snowstorm
    sandstorm blizzard fog mist sunshine rainstorm hurricane tornado rainy snowy sunny cloudy foggy stormy misty
    overcast windy wintry autumnal wintery frosty sunlit moonlit starry raining snowing storming hailing hail
    drizzle golden-hour apocalyptic post-apocalyptic nocturnal overgrown flooded blurry blurred blurrier bokeh
    plain transparent""".split()
)

ACTIONS = frozenset(
    """resize enlarge shrink downsize scale accelerate aim applaud argue arch ascend bake bark bask bathe
    beg bend bite bless blink blow blush bounce bow brake breathe browse brush buck bury call carry
    cartwheel cast catch celebrate charge chase chat cheer chew circle clap climb clench close
    collapse comb cook crack crash crawl cringe cross crouch crow cry cuddle curl curtsy cycle dance
    dangle dart dash descend dig dine dip dive dodge doze drift drink drive drown eat embrace
    exercise exhale explode express extend face fall feed fight fish fix flap flee flex flick flinch
    flip float flutter fly fold follow frown gallop gasp gaze gesture giggle glance glare gleam
    glide graze greet grimace grin groom growl guard gulp hammer hang hide hike hit hitchhike hop
    hover howl hug hum hunt hurdle inhale jog juggle jump kick kiss kneel knit knock laugh lay lead
    lean leap lick lie lift limp listen look lounge lower lunge march meditate meow mingle moonwalk
    munch nap neigh nibble nod nuzzle open pace paddle pant parachute parade pat peck peek peel peer
    perch perform pet photograph pick pirouette play plunge point pose pounce pour practice prance
    pray preen press prowl pull punch purr push race raise reach read rear recline relax rest ride
    roar roll rotate row run rush sail salute scowl scratch scream serve shake shout shrug shut sigh
    sing sip sit skate skateboard ski skip slam sleep slide slip slouch slump smile smirk smoke snap
    snarl sneeze sniff snore soar somersault speak spill spin spit splash spread sprint sprawl squat
    squeeze squint stagger stand stare steer step stir stomp stoop stop straddle hold straighten
    stretch stride stroke stroll strut stumble surf sway sweep swim swing swoop talk tap taunt taxi
    throw thrust tilt tip tiptoe toast topple toss touch tow trip trot tumble twirl twist type
    unfold unfurl vacuum wade wag wait walk wander wash watch wave weep whisper whistle wiggle wink
    work wrestle wriggle write balance beckon bound brandish burp chant coil cough cradle dab deal
    deliver dribble enter exit faint fidget fiddle flail flirt gnaw grab grasp grip hatch hurl
    inspect jab jostle kayak knead lasso levitate lurch milk mop nudge patrol pedal pitch plow prod
    putt rap rappel rattle repair retreat roam rock saunter scamper scurry sew shiver shovel shuffle
    skid slap sled slither smack smell snatch sneak snowboard snuggle sob speed squirm stalk strike
    strum suck swallow swat swerve tackle tango trudge tug twitch unwind vault waddle waltz whirl
    wince wobble yank hoist dunk tuck unbutton button unlock lock zip unzip untie yawn yell zoom
    rise sink blossom unroll uncross form take break come go grow bloom lying dying tying crumple
    clasp""".split()
)
SIZES = frozenset("bigger smaller larger taller shorter wider thinner huge tiny size".split())
"""How big a thing is; another size is a kind of movement."""
POSE_NOUNS = frozenset(
    """pose posture stance gesture expression gaze smile grin frown wink scowl smirk pout action movement motion
    direction orientation position positions handstand cartwheel backflip somersault thumbs-up peace-sign salute
    bow squat pirouette trick yoga laugh""".split()
)
POSE_ADJECTIVES = frozenset(
    """asleep awake happy sad angry surprised scared afraid shocked excited bored tired calm serious confused worried
    furious joyful cheerful proud shy disgusted frightened upset embarrassed amused smiling upright upside-down
    sideways backward backwards forward forwards airborne mid-air mid-jump mid-flight mid-stride crossed
    cross-legged closed open shut outstretched raised seated crouched bent stretched spread turned tilted
    motionless startled grumpy astonished terrified relieved thoughtful""".split()
)
DIRECTIONS = frozenset(
    """left right up down upward upwards downward downwards forward forwards backward backwards sideways around over
    away higher lower closer further farther upside-down clockwise counterclockwise apart together inward
    outward aside middle center corner back front side edge degrees camera viewer toward towards another
    opposite out off""".split()
)
BODY = frozenset(
    """arm hand finger thumb leg foot knee elbow head neck shoulder face eye eyelid mouth lip tongue tooth chin brow
    eyebrow back hip waist paw tail wing ear beak trunk claw fist body torso hoof fin wrist palm jaw""".split()
)
ADDED_BY = frozenset("wear hold carry sport don clutch grasp grip".split())
"""Verbs whose object appears with the action: making someone wear a scarf adds the scarf."""
PARTING = frozenset(
    """take taken cut leave edit crop photoshop get pull peel kick scratch chop wash brush break saw snip
    trim shake hack carry throw pick lift airbrush rip tear knock""".split()
)
"""Verbs that remove with "out", "off", "away", "down" or "from": "take the lamp out"."""
GONE = frozenset(
    """disappear vanish gone removed erased deleted invisible absent missing blank empty deserted bare barefoot
    clean-shaven unoccupied hairless leafless treeless bald nonexistent""".split()
)
LOOKS = frozenset(
    """look feel vibe finish treatment mood feeling touch texture appearance version edition rendition view
    panel page strip still poster grade hatching scheme aesthetic tone grain mode medium technique
    rendering genre glow palette character flavor""".split()
)
"""What a picture can be given: "a vintage feel"."""
INTRINSIC = frozenset(
    """hair fur feather petal leaf leaves skin nail stripe coat iris mane plumage paint lip lips hull eye eyes wall
    stripes feathers facade belly bark shell trim bodywork frame rim screen exterior trunk scale surface""".split()
)
"""Parts that a thing has anyway, so that giving it "blond hair" colors what is there."""
SURROUNDINGS = frozenset(
    """room street ground forest field meadow yard city town beach office indoor indoors outdoor outdoors interior
    exterior mountains hills woods place location floor desert garden studio kitchen bedroom classroom
    countryside world rest""".split()
)
"""Places that surround a subject rather than stand in the picture as a thing."""
INTENSIFIERS = frozenset(
    """very really quite slightly more less much completely entirely fully all a-bit bit little somewhat truly
    extremely rather super too so even just as now also then back again both other same whole entire full nice
    beautiful classic traditional old new famous modern better best nicer good great heavily lightly gently
    softly loudly slowly faster throughout overall""".split()
)
PRONOUNS = frozenset(
    """it him her them me us this that these those he she they everyone everybody someone""".split()
)
INDEFINITE = frozenset(
    """a an someone somebody something some more another several two three four five six many few couple
    extra additional second third new lots one""".split()
)
DETERMINERS = frozenset(
    """the his her its their my your our both all each every this that these those half most any either""".split()
)
PREPOSITIONS = frozenset(
    """in on at by with from of under over above below behind beside between near next inside outside into
    onto through across along against around to toward towards for during as like except atop upon
    among without beneath off within past before after beyond amid where""".split()
)

VERBS = frozenset().union(*OPERATORS.values())
COPULAS = frozenset(
    """be like as if though to into seem appear more so made taken shot photographed seen set""".split()
)
"""What may stand before a predicate without changing its kind: "look like a painting" is a painting."""
AROUND = SURROUNDINGS | BACKGROUND | TIMES_AND_WEATHER | WHOLE
MANNERS = TREATMENTS | LOOKS
STYLE = STYLE_NOUNS | STYLE_ADJECTIVES | ARTISTS
THE = frozenset("the his her its their my your this that these those".split())
KNOWN = frozenset().union(*(words for words in list(vars().values()) if isinstance(words, frozenset)))
"""Every word of the lexicon."""


@lru_cache(maxsize=1 << 16)
def forms(word: str) -> frozenset[str]:
    """The word and what it may be an inflection of: "running" gives "run", "leaves" gives "leaf"."""
    word = word.lower()
    forms = {word}
    for ending, stems in (
        ("s", ("",)),
        ("es", ("",)),
        ("ies", ("y",)),
        ("ves", ("f", "fe")),
        ("ing", ("", "e")),
        ("ed", ("", "e")),
        ("ied", ("y",)),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            stem = word[: -len(ending)]
            forms.update(stem + suffix for suffix in stems)
            if ending in ("ing", "ed") and stem[-1] == stem[-2]:
                forms.add(stem[:-1])
    return frozenset(forms)


def inflects(word: str, words: Collection[str]) -> bool:
    """Whether the word is a form of one of the words."""
    return any(form in words for form in forms(word))


def listed(word: str, words: Collection[str]) -> bool:
    """Whether the word itself is one of the words, whatever its case."""
    return word.lower() in words
